"""Learning rates that start again, and the rule that trains in rounds, as a recipe asks for them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from snnsl_plugin.core import schedules
from snnsl_plugin.errors import BadOption, BadRecipe, Stopped
from snnsl_plugin.recipe.digest import digest
from snnsl_plugin.recipe.load import load
from snnsl_plugin.recipe.runner import preview, run
from snnsl_plugin.training import checkpoint
from snnsl_plugin.training.events import Epoch

SMALL = [
    "threads=1", "train.epochs=6", "model={name: spiking_cnn, channels: [4, 8], hidden: 16, v_threshold: 0.5}",
    "dense_baseline=false", "data.encoder={name: direct, T: 4}", "tracking.mlflow=false", "distillation=null",
]  # fmt: skip


def lth(**changes: str) -> str:
    """A pruning block of three prunings, as an override."""
    words = {"type": "snnsl.lth", "density": "{name: geometric, first: 1.0, last: 0.3}", "start": "1ep", "every": "1ep"}
    return f"pruning={{{', '.join(f'{key}: {word}' for key, word in (words | {'until': '4ep'} | changes).items())}}}"


def told(run_dir: Path, event: str) -> list[dict]:
    read = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    return [line for line in read if line["event"] == event]


def model_of(run_dir: Path) -> dict:
    return checkpoint.load(run_dir / "checkpoint.safetensors")["model"]


def test_rounds_stopped_anywhere_go_on_bit_for_bit(tmp_path):
    recipe = load("digits", [*SMALL, lth(early_time="0.9")])
    whole = run(recipe, run_dir=tmp_path / "whole")
    for number, last in enumerate((1, 2, 3, 5)):

        def stop(phase, event, last=last):
            if isinstance(event, Epoch) and event.epoch == last:
                raise Stopped("on the way")

        with pytest.raises(Stopped):
            run(recipe, run_dir=tmp_path / "pieces", on_event=stop, resume=number > 0)
    pieces = run(recipe, run_dir=tmp_path / "pieces", resume=True)
    assert whole["accuracy"] == pieces["accuracy"]
    one, other = model_of(tmp_path / "whole"), model_of(tmp_path / "pieces")
    assert all(value.equal(other[name]) for name, value in one.items())
    epochs = [told(tmp_path / name, "epoch") for name in ("whole", "pieces")]
    assert [each["metrics"]["loss/train"] for each in epochs[0]] == [
        each["metrics"]["loss/train"] for each in epochs[1]
    ]
    assert whole["density"]["weights"]["achieved"] == pytest.approx(0.3, abs=1e-3)
    assert whole["regrown"] == 0
    updates = told(tmp_path / "whole", "mask_update")
    assert [each["metrics"]["density"] for each in updates] == pytest.approx(
        [0.3 ** (i / 3) for i in range(4)], abs=1e-3
    )
    # A round ends where half a cosine does, and the next begins where its second epoch does; the last has two.
    an_epoch = updates[0]["step"]
    cosine = schedules.cosine(first=2e-3, last=0.0)
    two, three = ([cosine((epoch * an_epoch - 1) / (n * an_epoch)) for epoch in range(1, n + 1)] for n in (2, 3))
    assert [each["metrics"]["lr"] for each in epochs[0]] == pytest.approx([*two, two[1], two[1], *three[1:]])


def test_the_plan_tells_the_rounds(tmp_path):
    planned = preview(load("digits", [*SMALL, lth()]))["density_per_epoch"]
    assert planned == pytest.approx([1.0, 0.3 ** (1 / 3), 0.3 ** (2 / 3), 0.3, 0.3, 0.3])


def test_the_learning_rate_of_a_run_starts_again_whoever_prunes(tmp_path):
    again = "train.lr_schedule={name: restart, at: 4ep, before: linear, after: linear, to: 0.5}"
    run(load("digits", [*SMALL, again, "pruning={type: dense}"]), run_dir=tmp_path / "dense")
    rates = [each["metrics"]["lr"] for each in told(tmp_path / "dense", "epoch")]
    steps = told(tmp_path / "dense", "epoch")[0]["step"]
    expected = [2e-3 * (1 - (e * steps - 1) / (4 * steps)) for e in (1, 2, 3, 4)]
    expected += [1e-3 * (1 - (e * steps - 1) / (2 * steps)) for e in (1, 2)]
    assert rates == pytest.approx(expected)


def test_a_block_that_is_not_there_changes_no_digest_and_one_that_is_does():
    plain = digest(load("digits"))
    assert digest(load("digits", ["train.lr_schedule=cosine"])) == plain
    others = {digest(load("digits", [f"train.lr_schedule={each}"])) for each in (
        "constant", "{name: restart, at: 70%}", "{name: restart, at: 60%}", "{name: restart, at: 70%, to: 0.5}"
    )}  # fmt: skip
    assert len(others | {plain}) == 5
    short, long = "{name: restart, at: 70%}", "{name: restart, at: 70%, before: cosine, after: cosine, to: 1.0}"
    assert digest(load("digits", [f"train.lr_schedule={short}"])) == digest(
        load("digits", [f"train.lr_schedule={long}"])
    )


@pytest.mark.parametrize(("wrong", "words"), [
    ("cosin", "train.lr_schedule: unknown learning rate schedule 'cosin'; did you mean 'cosine'"),
    ("restart", r"train.lr_schedule: must say when it restarts: \{name: restart, at: 70%\}"),
    ("{name: cosine}", "train.lr_schedule.name: takes cosine as a word"),
    ("{name: restrt, at: 70%}", "train.lr_schedule.name: unknown learning rate schedule 'restrt'; did you mean"),
    ("{name: restart}", "train.lr_schedule.at: this key is required and missing"),
    ("{name: restart, at: 70}", "train.lr_schedule.at: must be text, not 70"),
    ("{name: restart, at: 70%, after: square}", "train.lr_schedule.after: must be 'constant', 'linear' or 'cosine'"),
    ("{name: restart, at: 70%, too: 1.0}", "train.lr_schedule.too: unknown key 'too'; did you mean 'to'"),
    ("3", "train.lr_schedule: unknown learning rate schedule '3'"),
])  # fmt: skip
def test_what_cannot_be_is_said_with_its_place(wrong, words):
    with pytest.raises(BadRecipe, match=words) as caught:
        load("digits", [f"train.lr_schedule={wrong}"])
    assert len(caught.value.problems) == 1, str(caught.value)


def test_times_that_no_training_of_this_length_has_are_refused_before_it():
    with pytest.raises(BadOption, match="restart at '9ep'"):
        preview(load("digits", [*SMALL, "train.lr_schedule={name: restart, at: 9ep}"]))
    with pytest.raises(BadOption, match="the network is rewound there: end earlier"):
        preview(load("digits", [*SMALL, lth(until="100%")]))
