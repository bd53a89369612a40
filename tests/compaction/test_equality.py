import copy

import pytest
import torch
from compaction.families import Gap, lif
from spikingjelly.activation_based import functional, layer
from torch import Tensor, nn

from snnsl_plugin.compaction.equality import difference, random_like
from snnsl_plugin.errors import CannotCut

X = torch.rand(2, 3, 8, 8)


def lively(seed: int = 0) -> Gap:
    torch.manual_seed(seed)
    return Gap(lambda _: lif(v_threshold=0.1))


def test_a_model_equals_its_copy_and_not_one_with_another_weight() -> None:
    model = lively()
    assert difference(copy.deepcopy(model), copy.deepcopy(model), X) is None
    other = copy.deepcopy(model)
    with torch.no_grad():
        other.fc.weight[0, 0] += 1e-3
    told = difference(model, other, X)
    assert told is not None
    assert told.startswith("its outputs would change by")


def test_a_difference_behind_neurons_that_never_fire_is_seen() -> None:
    silent = Gap(lambda _: lif(v_threshold=1e6))
    other = copy.deepcopy(silent)
    with torch.no_grad():
        other.conv1.weight[0] *= 2
        assert torch.equal(silent.eval()(X), other.eval()(X))
    assert difference(silent, other, X) is not None


class Remembers(nn.Module):
    """The second step differs, not the first."""

    def __init__(self, shift: float) -> None:
        super().__init__()
        self.fc, self.shift, self.last = nn.Linear(3, 2), shift, None

    def reset(self) -> None:
        self.last = None

    def forward(self, x: Tensor) -> Tensor:
        out = self.fc(x) if self.last is None else self.fc(x) + self.shift
        self.last = out
        return out


def test_what_one_step_leaves_for_the_next_is_compared() -> None:
    torch.manual_seed(0)
    one = Remembers(0.0)
    other = Remembers(1.0)
    other.load_state_dict(one.state_dict())
    assert torch.equal(one(X[0, 0, :1, :3]), other(X[0, 0, :1, :3]))
    assert difference(one, other, torch.rand(2, 3)) is not None


class Limited(nn.Module):
    """Has one norm a step, and so many steps."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(layer.Linear(3, 4), layer.BatchNormThroughTime1d(2, 4), lif(), layer.Linear(4, 2))

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)


def test_a_model_with_fewer_steps_than_are_tried_is_compared_over_those() -> None:
    model = Limited()
    assert difference(copy.deepcopy(model), copy.deepcopy(model), torch.rand(2, 3)) is None
    other = copy.deepcopy(model)
    with torch.no_grad():
        other.net[3].weight[0, 0] += 1.0
    assert difference(model, other, torch.rand(2, 3)) is not None


def test_an_output_of_another_shape_is_told() -> None:
    one, other = nn.Linear(3, 4), nn.Linear(3, 2)
    assert (
        difference(one, other, torch.rand(2, 3))
        == "the model's own output would change its shape from (2, 4) to (2, 2)"
    )


def test_a_model_that_cannot_run_after_the_cut_is_told_and_one_that_never_could_is_refused() -> None:
    told = difference(nn.Linear(3, 4), nn.Linear(2, 4), torch.rand(2, 3))
    assert told is not None
    assert told.startswith("the cut model cannot run (RuntimeError")
    with pytest.raises(CannotCut, match="this Linear cannot be run .*verify=False"):
        difference(nn.Linear(2, 4), nn.Linear(2, 4), torch.rand(2, 3))


class MakesSingles(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(3, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(torch.cat([x.float(), torch.zeros(1, 3)]))


def test_a_model_that_computes_in_single_precision_only_is_compared_in_it() -> None:
    model = MakesSingles()
    assert difference(copy.deepcopy(model), copy.deepcopy(model), torch.rand(2, 3)) is None
    other = copy.deepcopy(model)
    with torch.no_grad():
        other.fc.bias += 1e-3
    assert difference(model, other, torch.rand(2, 3)) is not None


def test_half_precision_is_compared_as_it_is() -> None:
    model = nn.Linear(3, 2).to(torch.bfloat16)
    x = torch.rand(2, 3, dtype=torch.bfloat16)
    assert difference(copy.deepcopy(model), copy.deepcopy(model), x) is None
    assert model.weight.dtype == torch.bfloat16
    other = copy.deepcopy(model)
    with torch.no_grad():
        other.bias += 1
    assert difference(model, other, x) is not None


def test_batch_statistics_play_no_part() -> None:
    model = lively().train()
    mean = model.norm1.running_mean.clone()
    other = copy.deepcopy(model)
    assert difference(model, other, X) is None
    assert torch.equal(model.norm1.running_mean.float(), mean)


def test_several_outputs_are_all_compared() -> None:
    class Pair(nn.Module):
        def __init__(self, second: float) -> None:
            super().__init__()
            self.second = second

        def forward(self, a: Tensor, flag: bool) -> dict[str, Tensor]:
            return {"one": a, "two": a * self.second if flag else a}

    example = (torch.rand(2, 3), True)
    assert difference(Pair(1.0), Pair(1.0), example) is None
    assert difference(Pair(1.0), Pair(2.0), example) is not None


def test_numbers_are_drawn_anew_and_everything_else_stays() -> None:
    example = {"x": torch.full((2, 2), 7.0), "labels": torch.tensor([3, 4]), "rest": [torch.ones(1), "word"]}
    drawn = random_like(example, torch.float64)
    assert drawn["x"].dtype == torch.float64
    assert bool(((drawn["x"] >= 0) & (drawn["x"] < 1)).all())
    assert torch.equal(drawn["x"], random_like(example, torch.float64)["x"])
    assert not torch.equal(drawn["x"], random_like(example, torch.float64, 1)["x"])
    assert drawn["labels"].tolist() == [3, 4]
    assert drawn["rest"][1] == "word"


def test_multi_step_models_start_from_rest() -> None:
    model = lively().eval()
    functional.set_step_mode(model, "m")
    x = torch.rand(3, 2, 3, 8, 8)
    other = copy.deepcopy(model)
    with torch.no_grad():
        other.double()(x.double())
    other.float()
    assert difference(model, other, x) is None
