import pytest
import torch
from networks import batch, conv_net

from snnsl_plugin.errors import BadOption
from snnsl_plugin.training.learning_rate import LEARNING_RATES, Restart, learning_rate
from snnsl_plugin.training.loop import Training, fit


def test_a_restart_by_hand() -> None:
    # 10 steps, again at step 6: half a cosine over 6 steps, then from a half of the rate straight to 0 over 4.
    schedule = Restart("6it", before="cosine", after="linear", to=0.5).schedule(total_steps=10, steps_per_epoch=5)
    rates = [schedule(step / 10) for step in range(11)]
    assert rates == pytest.approx([1.0, 0.9330127, 0.75, 0.5, 0.25, 0.0669873, 0.5, 0.375, 0.25, 0.125, 0.0], abs=1e-6)


def test_each_part_is_the_course_that_its_name_says() -> None:
    for word, course in LEARNING_RATES.items():
        schedule = Restart("50%", before=word, after=word).schedule(total_steps=8, steps_per_epoch=4)
        for step in range(8):
            assert schedule(step / 8) == pytest.approx(course(step % 4 / 4))


@pytest.mark.parametrize("at", ["1it", "1ep", "37%", "63%"])
def test_the_restart_is_at_that_very_step(at: str) -> None:
    for total in (7, 33, 100, 1009):
        schedule = Restart(at, before="linear").schedule(total_steps=total, steps_per_epoch=3)
        rates = [schedule(step / total) for step in range(total)]
        rises = [step for step in range(1, total) if rates[step] > rates[step - 1]]
        moment = {"1it": 1, "1ep": 3, "37%": round(0.37 * total), "63%": round(0.63 * total)}[at]
        assert rises == ([moment] if moment > 1 else [])
        assert rates[moment] == 1.0


def test_training_follows_it() -> None:
    class Parts:
        def __len__(self) -> int:
            return 4

        def epoch(self, generator):
            yield from (batch(i) for i in range(4))

    rates = []

    class Watched(torch.optim.SGD):
        def step(self, closure=None):
            rates.append(self.param_groups[0]["lr"])
            return super().step(closure)

    model = conv_net()
    how = Training(epochs=2, lr_schedule=Restart("1ep", before="constant", after="linear", to=0.5))
    list(fit(model, Parts(), Parts(), Watched(model.parameters(), lr=0.4), how))
    assert rates == pytest.approx([0.4] * 4 + [0.2, 0.15, 0.1, 0.05])


@pytest.mark.parametrize(("chosen", "words"), [
    (Restart("100%"), "restart at '100%', step 10 of 10: choose one within"),
    (Restart("0it"), "step 0 of 10"),
    (Restart("3ep"), "step 15 of 10"),
    (Restart("70"), "'70' is not a duration"),
    (Restart("50%", before="step"), "before='step': choose one of constant, cosine, linear"),
    (Restart("50%", to=0.0), r"to=0\.0: the learning rate restarts at a share above 0"),
    ("step", "lr_schedule='step': choose one of constant, cosine, or a Restart"),
])  # fmt: skip
def test_what_cannot_be_is_refused(chosen, words: str) -> None:
    with pytest.raises(BadOption, match=words):
        learning_rate(chosen, total_steps=10, steps_per_epoch=5)
