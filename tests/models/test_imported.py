"""A network of the user's own: imported by permission alone, and checked with one small batch."""

import hashlib
import itertools
import sys

import pytest
import torch
from spikingjelly.activation_based import functional
from torch import nn

from snnsl_plugin.errors import BadOption
from snnsl_plugin.models._permission import is_permitted, permit
from snnsl_plugin.models._target import source_of
from snnsl_plugin.models.imported import imported

NUMBERS = itertools.count()
TOP = """\
import functools
import torch
from torch import nn
from spikingjelly.activation_based import functional, layer, neuron

class Net(nn.Module):
    def __init__(self, *, inputs=12, classes=5):
        super().__init__()
        self.flatten, self.linear = nn.Flatten(2), nn.Linear(inputs, classes)
    def forward(self, x):
        return self.linear(self.flatten(x))
"""
BUILD = """
def build(input_shape, classes):
    net = nn.Sequential(
        layer.Conv2d(input_shape[0], 4, 1), layer.BatchNorm2d(4), neuron.IFNode(v_threshold=0.001), layer.Dropout(0.5),
        layer.Flatten(), layer.Linear(4 * input_shape[1] * input_shape[2], classes)
    )
    functional.set_step_mode(net, "m")
    return net
"""


@pytest.fixture
def write(tmp_path, monkeypatch):
    """Writes a module into the current folder and gives its name, which no other test has."""
    monkeypatch.chdir(tmp_path)

    def write(text, name="own"):
        module = f"{name}_{next(NUMBERS)}"
        (tmp_path / f"{module}.py").write_text(TOP + text)
        return module

    return write


def made(target, shape=(3, 2, 2), classes=5, **options):
    permit(target)
    return imported(shape, classes, target=target, **options)


def test_the_function_is_called_with_shape_and_classes_and_gives_its_network(write):
    module = write(BUILD)
    path = list(sys.path)
    torch.manual_seed(3)
    net = made(f"{module}:build", (2, 4, 4), 7)
    torch.manual_seed(3)
    again = sys.modules[module].build((2, 4, 4), 7)
    assert all(torch.equal(a, b) for a, b in zip(net.parameters(), again.parameters(), strict=True))
    assert net(torch.rand(4, 2, 2, 4, 4)).shape == (4, 2, 7)
    assert sys.path == path


@pytest.mark.parametrize(
    "text",
    [
        "def build():\n    return Net()",
        "def build(*, wide=False):\n    return Net()",
        "def build(*arguments):\n    assert arguments == ((3, 2, 2), 5)\n    return Net()",
        "class build(Net):\n    def __init__(self):\n        super().__init__()",
        "build = functools.partial(lambda net, shape, classes: net(), Net)",
        "def build(shape, classes):\n    import late_of_build\n    return Net()",
    ],
)
def test_a_function_may_take_nothing_be_a_class_or_import_late(write, text, tmp_path, monkeypatch):
    (tmp_path / "late_of_build.py").write_text("")
    monkeypatch.delitem(sys.modules, "late_of_build", raising=False)
    assert type(made(f"{write(text)}:build")).__name__ in ("Net", "build")


def test_without_permission_nothing_is_imported_and_the_flag_is_named(write):
    module = write(BUILD + "other = build\n")
    with pytest.raises(BadOption, match=rf"give the flag --model {module}:build"):
        imported((3, 2, 2), 5, target=f"{module}:build")
    assert module not in sys.modules
    permit(f"{module}:build")
    assert is_permitted(f"{module}:build")
    with pytest.raises(BadOption, match=rf"give the flag --model {module}:other"):
        imported((3, 2, 2), 5, target=f"{module}:other")


@pytest.mark.parametrize(
    "target", ["", "own", "own:", ":build", "own.py:a:b", "own/net:build", "own net:build", "a..b:c", ".a:b", "1a:b"]
)
def test_a_malformed_target_says_how_it_is_written(target):
    for refuse in (permit, lambda target: imported((3, 2, 2), 5, target=target)):
        with pytest.raises(BadOption, match=r"is not written package\.module:function"):
            refuse(target)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("import surely_not_there", "cannot be imported: No module named 'surely_not_there'; install"),
        ("1 / 0", "cannot be imported: it raises ZeroDivisionError: division by zero; mend it"),
        ("def build(:", "cannot be imported: it raises SyntaxError"),
        ("raise SystemExit", "cannot be imported: it raises SystemExit; mend it"),
        ("def biuld(): ...", r"has no 'build'; did you mean 'biuld'\?"),
        ("build = 3", "is no function but of type int"),
        ("def build(shape):\n    ...", r"build\(shape\) can be called neither as function\(input_shape, classes\) nor"),
        (
            "def build(*a):\n    raise ValueError('too\\nwide')",
            r"\(\(3, 2, 2\), 5\) makes no network: it raises ValueErr",
        ),
        ("def build():\n    return Net", "gives something of type type, not a torch.nn.Module"),
        (
            "def build():\n    return Net(inputs=7)",
            r"does not take an input of \(2, 3, 3, 2, 2\), .* it raises RuntimeError",
        ),
        (
            "class build(Net):\n    def forward(self, x):\n        return super().forward(x).mean(0)",
            r"gives \(3, 5\) for an input of \(2, 3, 3, 2, 2\).*must give \(2, 3, 5\)",
        ),
        ("def build():\n    return Net(classes=4)", r"gives \(2, 3, 4\) .* must give \(2, 3, 5\)"),
        ("class build(Net):\n    def forward(self, x):\n        return super().forward(x), x", "gives a tuple, not"),
        ("def build():\n    return nn.Sequential(neuron.IFNode(), Net())", "neurons in single-step mode"),
    ],
)
def test_what_cannot_be_used_is_refused_in_one_sentence(write, text, says):
    with pytest.raises(BadOption, match=says) as refused:
        made(f"{write(text)}:build")
    assert "\n" not in str(refused.value)


def test_a_module_that_is_nowhere_is_named_with_the_folder_that_was_searched(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(BadOption, match=f"no module 'surely_not_there', .* current folder {tmp_path}"):
        made("surely_not_there.nets:build")


def test_single_step_neurons_in_a_loop_over_time_are_fine(write):
    text = """
class build(Net):
    def __init__(self):
        super().__init__()
        self.neuron = neuron.IFNode()
    def forward(self, x):
        return super().forward(torch.stack([self.neuron(step) for step in x]))
"""
    net = made(f"{write(text)}:build")
    assert not net.neuron._forward_hooks


def test_the_check_leaves_the_network_as_it_was(write):
    net = made(f"{write(BUILD.replace('return net', 'net[3].eval(); return net'))}:build")
    assert torch.equal(net[1].running_mean, torch.zeros(4))
    assert [m.training for m in net] == [True, True, True, False, True, True]
    assert net[2].v == 0.0
    assert all(weight.grad is None for weight in net.parameters())


def test_the_check_draws_no_random_numbers_even_where_the_network_does(write):
    text = """
class build(Net):
    def forward(self, x):
        return super().forward((torch.rand_like(x) < x).float())
"""
    target = f"{write(text)}:build"
    torch.manual_seed(11)
    made(target)
    drawn = torch.rand(3)
    torch.manual_seed(11)
    sys.modules[target.partition(":")[0]].build()
    assert torch.equal(torch.rand(3), drawn)


def test_neurons_of_ones_own_start_without_what_the_check_left_in_them(write):
    text = """
class build(Net):
    v = None
    def reset(self):
        self.v = None
    def forward(self, x):
        self.v = x.sum(0)
        return super().forward(x)
"""
    assert made(f"{write(text)}:build").v is None


def test_the_source_is_the_digest_of_the_file_the_function_is_written_in(write, tmp_path):
    inner = write(BUILD, "inner")
    outer = write(f"from {inner} import build", "outer")
    permit(f"{outer}:build")
    expected = hashlib.sha256((tmp_path / f"{inner}.py").read_bytes()).hexdigest()[:16]
    assert source_of(f"{outer}:build") == expected
    assert isinstance(made(f"{outer}:build", source=expected), nn.Module)


def test_code_that_has_changed_since_is_refused_and_named(write, tmp_path):
    module = write(BUILD)
    permit(f"{module}:build")
    before = source_of(f"{module}:build")
    with (tmp_path / f"{module}.py").open("a") as file:
        file.write("# changed\n")
    with pytest.raises(BadOption, match=rf"{module}\.py.* has changed since .*source was {before}"):
        made(f"{module}:build", source=before)
    assert isinstance(made(f"{module}:build"), nn.Module)


def test_an_imported_network_equals_the_same_network_called_directly(write):
    net = made(f"{write(BUILD)}:build")
    x = torch.rand(3, 2, 3, 2, 2)
    first = net.eval()(x)
    functional.reset_net(net)
    assert torch.equal(net(x), first)
