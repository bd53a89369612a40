import pytest
from spikingjelly.activation_based import neuron, surrogate
from torch import nn

from snnsl_plugin.errors import BadOption, NothingMatched
from snnsl_plugin.training.health.wide_surrogate import wide_surrogate


def net(*alphas: float) -> nn.Sequential:
    return nn.Sequential(*[neuron.IFNode(surrogate_function=surrogate.ATan(alpha=alpha)) for alpha in alphas])


def alphas(model: nn.Sequential) -> list[float]:
    return [layer.surrogate_function.alpha for layer in model]


def test_by_hand() -> None:
    model = net(2.0, 4.0)
    with wide_surrogate(model, 10, 5, factor=0.5, until="4it") as care:
        seen = []
        for step in range(1, 11):
            care.before_step(step)
            seen.append(alphas(model)[0])
        # down in four steps from 2 to 1, and back in six: at step 11 it would be 2 again
        assert seen == pytest.approx([2, 1.75, 1.5, 1.25, 1, 1 + 1 / 6, 1 + 2 / 6, 1.5, 1 + 4 / 6, 1 + 5 / 6])
        assert alphas(model)[1] == pytest.approx(2 * seen[-1])
    assert alphas(model) == [2.0, 4.0]


def test_a_resumed_run_needs_no_state() -> None:
    one, other = net(2.0), net(2.0)
    with wide_surrogate(one, 10, 5) as straight, wide_surrogate(other, 10, 5) as resumed:
        for step in range(1, 8):
            straight.before_step(step)
        resumed.before_step(7)
        assert alphas(one) == alphas(other)


def test_neurons_that_share_a_surrogate_move_it_once() -> None:
    shared = surrogate.ATan(alpha=2.0)
    model = nn.Sequential(neuron.IFNode(surrogate_function=shared), neuron.IFNode(surrogate_function=shared))
    with wide_surrogate(model, 10, 5, factor=0.5, until="5it") as care:
        care.before_step(6)
        assert shared.alpha == pytest.approx(1.0)


def test_until_the_very_end() -> None:
    model = net(2.0)
    with wide_surrogate(model, 4, 2, factor=0.5, until="100%") as care:
        care.before_step(4)
        assert alphas(model) == pytest.approx([1.25])


@pytest.mark.parametrize("options", [{"factor": 1.0}, {"factor": 0.0}, {"until": "0it"}, {"until": "11it"}])
def test_what_widens_nothing_is_refused(options) -> None:
    with pytest.raises(BadOption):
        wide_surrogate(net(2.0), 10, 5, **options)


def test_a_network_without_such_neurons_is_refused() -> None:
    with pytest.raises(NothingMatched, match="surrogate_function with an alpha"):
        wide_surrogate(nn.Linear(2, 2), 10, 5)
