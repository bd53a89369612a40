"""Broken recipes: each gets sentences with their places, exit status 1, and no traceback, through the real command."""

import pytest

from snnsl_plugin.cli import main
from snnsl_plugin.errors import BadRecipe
from snnsl_plugin.recipe.load import load

GOOD = """\
schema: 1
seed: 0
data: {name: digits, encoder: {name: direct, T: 4}}
model: {name: spiking_cnn, hidden: 16}
train:
  epochs: 2
  batch_size: 4
  optimizer: {name: adam, lr: 1.0e-3}
pruning:
  type: snnsl.drop_grow
  criterion: {name: magnitude}
  growth: {name: gradient}
  distribution: {name: erk}
  density: {name: cubic, first: 1.0, last: 0.1}
  swap: {name: cosine, first: 0.3, last: 0.0}
  every: 10it
  start: 0it
  until: 80%
distillation: {guide: {name: virtual}, divergence: {name: kl}, temperature: 4}
tracking: {mlflow: false}
"""

#: what is replaced in GOOD, by what, and the problems without the file's name
CHANGED = {
    "typo at the top": ("seed: 0", "sead: 0", "2:1: sead: unknown key 'sead'; did you mean 'seed'?"),
    "typo in a block": (
        "  epochs: 2",
        "  epoch: 2",
        "6:3: train.epoch: unknown key 'epoch'; did you mean 'epochs'?",
    ),
    "typo in a choice": (
        "hidden: 16",
        "hiden: 16",
        "4:28: model.hiden: unknown key 'hiden'; did you mean 'hidden'?",
    ),
    "typo in the pruning block": (
        "  swap:",
        "  swpa:",
        "15:3: pruning.swpa: unknown key 'swpa'; did you mean 'swap'?",
    ),
    "typo in a nested choice": (
        "T: 4",
        "TT: 4",
        "3:46: data.encoder.TT: unknown key 'TT'; did you mean 'T'?",
    ),
    "typo three deep": (
        "first: 1.0",
        "frist: 1.0",
        "14:26: pruning.density.frist: unknown key 'frist'; did you mean 'first'?",
    ),
    "typo in a block of options": (
        "name: digits,",
        "name: nmnist, augment: {rol: 2},",
        "3:32: data.augment.rol: unknown key 'rol'; did you mean 'roll'?",
    ),
    "an option of a block outside its range": (
        "name: digits,",
        "name: nmnist, augment: {drop: 1.0},",
        "3:22: data.augment: augment.drop is 1.0; it is the share of events dropped, in [0, 1)",
    ),
    "a key that is like none": (
        "tracking: {mlflow",
        "tracking: {qqq",
        "20:12: tracking.qqq: unknown key 'qqq' (known here: experiment, mlflow, uri)",
    ),
    "a key of another block": (
        "seed: 0",
        "lr: 0.1",
        "2:1: lr: unknown key 'lr' (known here: compare, data, dense_baseline, distillation, evolution, extends, "
        "health, model, parent, pruning, schema, seed, threads, tracking, train, tune)",
    ),
    "unknown data set": (
        "name: digits",
        "name: digit",
        "3:8: data.name: unknown data set 'digit'; did you mean 'digits'?",
    ),
    "unknown encoder": (
        "name: direct",
        "name: driect",
        "3:32: data.encoder.name: unknown encoder 'driect'; did you mean 'direct'?",
    ),
    "unknown model": (
        "name: spiking_cnn",
        "name: spikingcnn",
        "4:9: model.name: unknown model 'spikingcnn'; did you mean 'spiking_cnn'?",
    ),
    "unknown optimizer": (
        "name: adam",
        "name: adma",
        "8:15: train.optimizer.name: unknown optimizer 'adma'; did you mean 'adam'?",
    ),
    "unknown pruning type": (
        "snnsl.drop_grow",
        "drop_grow",
        "10:3: pruning.type: unknown pruning type 'drop_grow'; did you mean 'snnsl.drop_grow'? "
        "(known: dense, nni.agp_level, nni.agp_taylor, nni.fpgm, nni.l1_norm, nni.l2_norm, nni.level, "
        "nni.linear_l1_norm, nni.movement, nni.slim, nni.spiking_dynamic, nni.taylor, snnsl.bpsr, snnsl.dpap, "
        "snnsl.dpf, snnsl.drop_grow, snnsl.grad_r, snnsl.lth, snnsl.sca, snnsl.sd_snn, snnsl.stds, snnsl.upr, "
        "torch.global_l1, torch.l1, torch.ln_structured, torch.random, torch.random_structured, torch_pruning.base, "
        "torch_pruning.bn_scale, torch_pruning.group_norm, torch_pruning.growing_reg, torch_pruning.spiking, "
        "torch_pruning.spiking_dynamic)",
    ),
    "unknown criterion": (
        "{name: magnitude}",
        "magnitud",
        "11:3: pruning.criterion.name: unknown criterion 'magnitud'; did you mean 'magnitude'? (known: "
        "activity_product, criticality, fisher, hebbian, lamp, magnitude, membrane_potential, spike_saliency, "
        "synop_value, taylor)",
    ),
    "unknown growth": (
        "name: gradient",
        "name: gradeint",
        "12:12: pruning.growth.name: unknown growth 'gradeint'; did you mean 'gradient'?",
    ),
    "unknown distribution": (
        "name: erk",
        "name: erc",
        "13:18: pruning.distribution.name: unknown distribution 'erc'; did you mean 'erk'?",
    ),
    "unknown schedule": (
        "name: cubic",
        "name: qubic",
        "14:13: pruning.density.name: unknown schedule 'qubic'; did you mean 'cubic'?",
    ),
    "unknown divergence": (
        "name: kl",
        "name: kll",
        "19:53: distillation.divergence.name: unknown divergence 'kll'; did you mean 'kl'?",
    ),
    "unknown guide": (
        "name: virtual",
        "name: vertual",
        "19:24: distillation.guide.name: unknown guide 'vertual'; did you mean 'virtual'?",
    ),
    "a choice without a name": (
        "{name: erk}",
        "{}",
        "13:3: pruning.distribution: must say which distribution: give it a name (known: erk",
    ),
    "a choice that is a list": (
        "{name: erk}",
        "[erk]",
        "13:3: pruning.distribution: must be the name of a distribution",
    ),
    "text for a number": ("lr: 1.0e-3", "lr: fast", '8:27: train.optimizer.lr: must be a number, not "fast"'),
    "a quoted number": ("lr: 1.0e-3", "lr: '0.1'", '8:27: train.optimizer.lr: must be a number, not "0.1"'),
    "true for a whole number": ("seed: 0", "seed: true", "2:1: seed: must be a whole number, not true"),
    "true for a number": ("first: 1.0", "first: true", "14:26: pruning.density.first: must be a number, not true"),
    "a fraction for a whole number": ("epochs: 2", "epochs: 2.0", "6:3: train.epochs: must be a whole number, not 2.0"),
    "yes for true": ("mlflow: false", "mlflow: yes", '20:12: tracking.mlflow: must be true or false, not "yes"'),
    "an infinite number": ("lr: 1.0e-3", "lr: .inf", "8:27: train.optimizer.lr: must be a finite number, not Infinity"),
    "text for a block": ("{mlflow: false}", "none", '20:1: tracking: must be a block of keys, not "none"'),
    "nothing for a block": ("{name: spiking_cnn, hidden: 16}", "", "4:1: model: must be the name of a model"),
    "a number below its range": ("epochs: 2", "epochs: 0", "6:3: train.epochs: must be at least 1, not 0"),
    "an unknown word": (
        "mlflow: false}",
        "mlflow: false}\nthreads: [2]",
        "21:1: threads: must be a whole number, not [2]",
    ),
    "a later version": ("schema: 1", "schema: 2", "1:1: schema: must be 1, not 2"),
    "density above 1": ("last: 0.1", "last: 1.5", "14:38: pruning.density.last: is 1.5; it must be in (0, 1]"),
    "density of 0": ("last: 0.1", "last: 0", "14:38: pruning.density.last: is 0; it must be in (0, 1]"),
    "a constant density above 1": (
        "{name: cubic, first: 1.0, last: 0.1}",
        "{name: constant, value: 2}",
        "14:29: pruning.density.value: is 2; it must be in (0, 1]",
    ),
    "a negative swap": ("first: 0.3", "first: -0.3", "15:24: pruning.swap.first: is -0.3; it must be in [0, 1]"),
    "no time steps": ("T: 4", "T: 0", "3:22: data.encoder: T is 0"),
    "a duration without unit": ("every: 10it", "every: 10", "16:3: pruning.every: must be text, not 10"),
    "a duration in another unit": (
        "every: 10it",
        "every: 10s",
        "16:3: pruning.every: '10s' is not a duration: write steps as '100it', epochs as '2ep', a share as '80%'",
    ),
    "more than all": ("until: 80%", "until: 120%", "18:3: pruning.until: '120%' is not a duration"),
    "an end before the start": (
        "start: 0it",
        "start: 90%",
        "18:3: pruning.until: is '80%', which is not after start ('90%')",
    ),
    "updates at every no step": (
        "every: 10it",
        "every: 0it",
        "16:3: pruning.every: is '0it': masks need at least one step between two updates",
    ),
    "a missing key": ("  batch_size: 4\n", "", "5:1: train.batch_size: this key is required and missing"),
    "a missing block": ("model: {name: spiking_cnn, hidden: 16}\n", "", "1:1: model: this key is required and missing"),
    "a duplicate key": ("seed: 0", "seed: 0\nseed: 0", "3:1: seed: this key is here twice (first in line 2): keep one"),
    "a duplicate key inside": (
        "hidden: 16",
        "hidden: 16, hidden: 16",
        "4:40: model.hidden: this key is here twice (first in line 4): keep one",
    ),
    "a tab": ("  epochs", "\tepochs", "6:1: a tab cannot indent YAML: use spaces"),
    "an open bracket": (
        "{mlflow: false}",
        "{mlflow: false",
        "21:1: this is not YAML: expected ',' or '}', but got '<stream end>'",
    ),
    "an unquoted star": ("until: 80%", "layers: [*]", "this is not YAML: "),
    "an alias": ("seed: 0", "seed: &s 0\nthreads: *s", "3:1: threads: aliases (*name) are not read in recipes"),
    "a python object": (
        "seed: 0",
        "seed: !!python/object/apply:os.getpid []",
        "2:1: seed: tags (tag:yaml.org,2002:python",
    ),
    "a key that is a number": ("seed: 0", "1: 0", "2:1: a key must be a word, not '1'"),
    "two documents": ("seed: 0", "---\nseed: 0", "2:1: this is not YAML: but found another document"),
    "extends that is a list": (
        "seed: 0",
        "extends: [a]",
        "2:1: extends: must be one file or the name of a shipped recipe",
    ),
    "a parent that is not there": ("seed: 0", "extends: digts", "2:1: extends: digts: there is no such file"),
}

#: the bytes of the whole file, and what is said of it
WHOLE = {
    "an empty file": (b"", "1:1: the file is empty"),
    "only a comment": (b"# nothing\n", "1:1: the file is empty"),
    "a list at the top": (b"- seed: 0\n", "1:1: a recipe is a mapping of keys to values, not a list"),
    "a word at the top": (b"digits\n", "1:1: a recipe is a mapping of keys to values, not a single value"),
    "not UTF-8": (b"seed: 0 # \xff\n", " is not UTF-8 text (byte 10)"),
    "brackets without end": (b"seed: " + b"[" * 5000, "1:1: this is nested too deeply to be a recipe"),
    "a control character": (b"seed: \x01\n", "1:1: this is not YAML: "),
}

#: what stands on the command line, and what is said of it
OVERRIDES = {
    "no equals sign": ("seed", "command line: seed: an override is written key.path=value, e.g. train.epochs=3"),
    "an empty part": ("train..epochs=3", "command line: train..epochs=3: an override is written key.path=value"),
    "an unknown path": ("train.epoch=3", "train.epoch: unknown key 'epoch'; did you mean 'epochs'?"),
    "a path through a number": ("seed.x=3", 'seed: must be a whole number, not {"x": 3}'),
    "an item of a list": ("model.channels.0=3", 'model.channels: must be a list, not {"0": 3}'),
    "a wrong type": ("train.epochs=x", 'command line: train.epochs=x: train.epochs: must be a whole number, not "x"'),
    "a density above 1": ("pruning.density.last=1.5", "pruning.density.last: is 1.5; it must be in (0, 1]"),
    "a value that is not YAML": ("seed=[1", "command line: seed=[1: seed: this is not YAML: "),
    "a parent": ("extends=digits", "command line: extends=digits: extends: extends belongs in a file"),
}


def refused(capsys, file, *overrides):
    """The problems, after checking that command and function agree."""
    with pytest.raises(BadRecipe) as caught:
        load(file, overrides)
    status = main(["validate", str(file), *overrides])
    out, err = capsys.readouterr()
    assert (status, out) == (1, "")
    assert err == "\n".join(caught.value.problems) + "\n"
    assert "Traceback" not in err
    return caught.value.problems


@pytest.fixture
def good(tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_text(GOOD, encoding="utf-8")
    return path


def test_the_recipe_that_is_broken_below_is_good(good, capsys):
    assert main(["validate", str(good)]) == 0
    assert "valid, digest" in capsys.readouterr().out


@pytest.mark.parametrize("case", CHANGED)
def test_a_broken_line_is_one_problem_with_its_place(case, good, capsys):
    old, new, said = CHANGED[case]
    assert GOOD.count(old) == 1, "the case must say what it changes"
    good.write_text(GOOD.replace(old, new), encoding="utf-8")
    problems = refused(capsys, good)
    assert len(problems) == 1
    assert problems[0].startswith(f"{good}:")
    assert said in problems[0]


@pytest.mark.parametrize("case", WHOLE)
def test_a_file_that_is_no_recipe_is_one_sentence(case, good, capsys):
    content, said = WHOLE[case]
    good.write_bytes(content)
    (problem,) = refused(capsys, good)
    assert problem.startswith(f"{good}:")
    assert said in problem


@pytest.mark.parametrize("case", OVERRIDES)
def test_a_bad_override_is_named(case, good, capsys):
    override, said = OVERRIDES[case]
    (problem,) = refused(capsys, good, override)
    assert problem.startswith(f"command line: {override}")
    assert said in problem


def test_an_override_given_twice_is_refused(good, capsys):
    (problem,) = refused(capsys, good, "train.epochs=3", "train.epochs=4")
    assert "says this twice (also command line: train.epochs=3): keep one" in problem


def test_a_missing_file_lists_the_shipped_recipes_near_it(tmp_path, capsys):
    (problem,) = refused(capsys, tmp_path / "digts.yaml")
    assert "there is no such file, and no shipped recipe of that name; did you mean 'digits'? (shipped: " in problem


def test_a_folder_is_not_a_recipe(tmp_path, capsys):
    (problem,) = refused(capsys, tmp_path)
    assert f"{tmp_path}: is a folder, not a recipe" in problem


def test_a_circle_of_parents_is_shown(tmp_path, capsys):
    for name, parent in (("a", "b"), ("b", "c"), ("c", "a")):
        (tmp_path / f"{name}.yaml").write_text(f"seed: 1\nextends: {parent}.yaml\n")
    (problem,) = refused(capsys, tmp_path / "a.yaml")
    assert problem == (
        f"{tmp_path / 'c.yaml'}:2:1: extends: these recipes extend one another in a circle: "
        "a.yaml -> b.yaml -> c.yaml -> a.yaml"
    )


def test_a_recipe_that_extends_itself_is_a_circle(tmp_path, capsys):
    (tmp_path / "a.yaml").write_text("extends: a.yaml\n")
    (problem,) = refused(capsys, tmp_path / "a.yaml")
    assert problem.endswith("a.yaml -> a.yaml")


def test_all_problems_come_at_once_in_the_order_of_the_file(good, capsys):
    broken = GOOD.replace("seed: 0", "seed: -1").replace("epochs: 2", "epochs: 0").replace("name: erk", "name: erc")
    good.write_text(broken.replace("tracking", "traking"))
    lines = [int(problem.split(":")[1]) for problem in refused(capsys, good)]
    assert lines == [2, 6, 13, 20]
