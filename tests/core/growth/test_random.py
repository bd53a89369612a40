import pytest
import torch

from snnsl_plugin.core.growth.random import random
from snnsl_plugin.core.layer import Layer
from snnsl_plugin.errors import MissingStatistic


def layer(seed: int | None) -> Layer:
    weight = torch.zeros(50, 50)
    generator = None if seed is None else torch.Generator().manual_seed(seed)
    return Layer("fc", weight, {"mask": weight == 0}, generator=generator)


def test_draws_from_its_own_stream_and_moves_on() -> None:
    one = layer(1)
    assert torch.equal(random(one), random(layer(1)))
    assert not torch.equal(random(one), random(layer(1)))
    assert not torch.equal(random(layer(1)), random(layer(2)))


def test_is_uniform() -> None:
    drawn = random(layer(0))
    assert 0 <= float(drawn.min()) < float(drawn.max()) < 1
    assert float(drawn.mean()) == pytest.approx(0.5, abs=0.03)


def test_without_a_generator_says_so() -> None:
    with pytest.raises(MissingStatistic, match="has no generator"):
        random(layer(None))
