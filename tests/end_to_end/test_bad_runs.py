"""What breaks at the run: one sentence with its place, the right exit status, and nothing of an earlier run lost."""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from snnsl_plugin.cli import main
from snnsl_plugin.recipe import runner


@pytest.fixture(scope="module")
def finished(tiny, tmp_path_factory) -> Path:
    """The folder of a finished tiny run."""
    run_dir = tmp_path_factory.mktemp("earlier") / "run"
    runner.run(tiny("train.epochs=1"), run_dir=run_dir, name="digits")
    return run_dir


@pytest.fixture
def earlier(finished, tmp_path) -> Path:
    """A copy of it that a test may break."""
    return Path(shutil.copytree(finished, tmp_path / "earlier"))


@pytest.fixture
def half_done(earlier) -> Path:
    """A run that was killed before its result."""
    (earlier / "result.json").unlink()
    return earlier


class Said:
    """Exit status and words of `snnsl run`, after checking what every refusal has in common."""

    def __init__(self, capsys: pytest.CaptureFixture[str], words: list[str]) -> None:
        self.status = main(["run", *words])
        out, err = capsys.readouterr()
        # The line an epoch may stand before it, and a warning of the device.
        self.sentence = err.splitlines()[-1] if err else ""
        assert "Traceback" not in out + err
        assert "unexpected" not in self.sentence
        assert out == ""
        others = [line for line in err.splitlines()[:-1] if not line.startswith("sparse epoch")]
        assert others == [], "one sentence is enough"


@pytest.fixture
def say(capsys, tiny_words) -> Callable[..., Said]:
    """Runs the tiny recipe with changes; words that start with `-` and what follows them are options."""

    def run(*changes: str, options: tuple[str, ...] = (), recipe: str = "digits") -> Said:
        return Said(capsys, [recipe, *tiny_words(*changes), *options])

    return run


def contents(folder: Path) -> dict[str, bytes]:
    """Every file of a folder but its lock."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != ".lock"
    }


# -------------------------------------------------------------------------------- before anything is trained


def pictures(
    folder: Path, parts: tuple[str, ...] = ("train", "test"), classes: tuple[str, ...] = ("cat", "dog")
) -> str:
    draw = np.random.default_rng(0)
    for part in parts:
        for name in classes:
            (folder / part / name).mkdir(parents=True)
            for number in range(6):
                grey = draw.integers(0, 256, (8, 8), dtype=np.uint8)
                Image.fromarray(grey).save(folder / part / name / f"{number}.png")
    return f"data={{name: image_folder, root: '{folder}', size: 8, validation: 0.3, encoder: {{name: direct, T: 2}}}}"


def undecodable(folder: Path) -> list[str]:
    change = pictures(folder)
    (folder / "train" / "dog" / "3.png").write_bytes(b"\x89PNG\r\n\x1a\nnot a picture")
    return [change]


def another_class(folder: Path) -> list[str]:
    change = pictures(folder)
    (folder / "test" / "cow").mkdir()
    return [change]


def no_test_part(folder: Path) -> list[str]:
    return [pictures(folder, parts=("train",))]


def an_empty_class(folder: Path) -> list[str]:
    change = pictures(folder)
    for path in (folder / "test" / "dog").iterdir():
        path.unlink()
    return [change]


def recordings(folder: Path, broken: Callable[[np.ndarray], Any] | None = None) -> list[str]:
    draw = np.random.default_rng(0)
    for part in ("train", "test"):
        for name in ("left", "right"):
            (folder / part / name).mkdir(parents=True)
            for number in range(6):
                x, y, p = draw.integers(0, 8, 40), draw.integers(0, 8, 40), draw.integers(0, 2, 40)
                events = np.stack([x, y, p, np.sort(draw.integers(0, 1000, 40))], axis=1).astype(float)
                np.save(folder / part / name / f"{number}.npy", events)
    path = folder / "train" / "right" / "2.npy"
    if broken:
        broken(path)
    return [f"data={{name: event_folder, root: '{folder}', sensor_size: [8, 8], T: 2, validation: 0.3}}"]


def cut_short(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:300])


def not_a_number(path: Path) -> None:
    events = np.load(path)
    events[7, 3] = np.nan
    np.save(path, events)


def backwards(path: Path) -> None:
    events = np.load(path)
    events[7, 3] = 5000
    np.save(path, events)


def torn_bin(folder: Path) -> list[str]:
    words = recordings(folder)
    (folder / "train" / "right" / "2.npy").unlink()
    (folder / "train" / "right" / "2.bin").write_bytes(bytes(5 * 40 - 2))
    return words


#: what makes the trouble in a folder and says it as changes of the recipe, the exit status, and what is said
REFUSED: dict[str, tuple[Callable[[Path], list[str]], int, str]] = {
    "data that is not there": (
        lambda folder: ["data={name: nmnist}"],
        1,
        r"nmnist: .* in {root}/nmnist\. Expected there: Train/<digit>/\*\.bin .*To get it: .*1\.2 GB.*SNNSL_DATA",
    ),
    "a root that is not there": (
        lambda folder: [f"data={{name: nmnist, root: '{folder}'}}"],
        1,
        r"nmnist: .* in {folder}\. Expected there: ",
    ),
    "pictures that are not there": (
        lambda folder: [f"data={{name: image_folder, root: '{folder}', size: 8}}"],
        1,
        r"image_folder: 0 class folders in train/ in {folder}\. Expected there: train/<class>/",
    ),
    "no test part": (no_test_part, 1, r"image_folder: no class folders in test/ in {folder}"),
    "a class without pictures": (an_empty_class, 1, r"no pictures of class 'dog' in test/"),
    "a picture that will not decode": (undecodable, 2, r"{folder}/train/dog/3\.png"),
    "a class that train has not": (another_class, 2, r"{folder}/test has class 'cow', which train/ has not"),
    "an event file cut short": (
        lambda folder: recordings(folder, cut_short),
        2,
        r"{folder}/train/right/2\.npy cannot be read as an event recording .*load the file again or remove it",
    ),
    "a recording of N-MNIST cut short": (torn_bin, 2, r"{folder}/train/right/2\.bin is cut short: 198 bytes"),
    "NaN in an event file": (lambda folder: recordings(folder, not_a_number), 2, r"{folder}/train/right/2\.npy"),
    "time that runs backwards": (
        lambda folder: recordings(folder, backwards),
        2,
        r"{folder}/train/right/2\.npy: time goes backwards after event ",
    ),
    "events shown as pictures": (
        lambda folder: [*recordings(folder), "data.encoder=direct"],
        1,
        r"direct",
    ),
    "a pattern that matches no layer": (
        lambda folder: ["pruning.layers=['features.*']"],
        1,
        r"'features\.\*'.*conv1, conv2, fc1, fc2",
    ),
    "a pattern to leave out that matches no layer": (
        lambda folder: ["pruning.exclude=['fc9']"],
        1,
        r"'fc9'.*fc1",
    ),
    "nothing left to prune": (lambda folder: ["pruning.exclude=['*']"], 1, r"exclude"),
    "a density that the layers left out exceed": (
        lambda folder: ["pruning.exclude=['fc1']", "pruning.density={name: constant, value: 0.1}"],
        1,
        r"density",
    ),
    "a density that leaves a layer nothing": (
        lambda folder: ["pruning.density={name: constant, value: 0.002}", "pruning.distribution=uniform"],
        1,
        r"layer 'conv1' would keep none of its 36 weights.*raise the last density, or exclude this layer",
    ),
    "an end before the first step": (lambda folder: ["pruning.start=100ep"], 1, r"until.*must come after start"),
    "a GPU where there is none": (
        lambda folder: ["train.device=cuda"],
        1,
        r"train\.device is 'cuda' but this machine has no usable GPU: write 'cpu' or 'auto'",
    ),
    "a picture too small for the network": (
        lambda folder: ["model.channels=[4, 4, 4, 4, 4]"],
        1,
        r"32",
    ),
    "a guide that is not there": (
        lambda folder: [f"distillation.guide={{name: sparse, run: '{folder}'}}"],
        1,
        r"{folder} holds no finished run: run its recipe first, or name another run",
    ),
    "a guide without a run": (lambda folder: ["distillation.guide=sparse"], 1, r"distillation\.guide\.run is missing"),
    "more validation than there is": (lambda folder: ["data.validation=1.5"], 1, r"validation is 1\.5"),
    "a share of nothing": (lambda folder: ["data.test=0.0001"], 1, r"test"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_work_is_said_before_anything_is_trained_or_written(case, say, tmp_path, monkeypatch):
    make, status, sentence = REFUSED[case]
    monkeypatch.setenv("SNNSL_DATA", str(tmp_path / "root"))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    run_dir, folder = tmp_path / "run", tmp_path / "material"
    said = say(*make(folder), options=("--run-dir", str(run_dir)))
    places = {"folder": re.escape(str(folder)), "root": re.escape(str(tmp_path / "root"))}
    for word, place in places.items():
        sentence = sentence.replace(f"{{{word}}}", place)
    assert re.search(sentence, said.sentence), said.sentence
    assert said.status == status
    assert not run_dir.exists()


def test_more_samples_a_batch_than_there_are_is_one_batch_an_epoch(tiny):
    assert runner.preview(tiny("train.batch_size=5000", "pruning.every=1it"))["steps_per_epoch"] == 1


# ------------------------------------------------------------------------------------- folders and checkpoints


def whose_recipe_differs(folder: Path) -> None:
    """As it is: the call has another recipe."""


def without_result(folder: Path) -> None:
    (folder / "result.json").unlink()


def with_half_a_checkpoint(folder: Path) -> None:
    without_result(folder)
    path = folder / "checkpoint.safetensors"
    path.write_bytes(path.read_bytes()[:1000])


def with_no_checkpoint_at_all(folder: Path) -> None:
    without_result(folder)
    (folder / "checkpoint.safetensors").write_bytes(b"")


def with_anothers_checkpoint(folder: Path) -> None:
    without_result(folder)
    from snnsl_plugin.training import checkpoint

    path = folder / "checkpoint.safetensors"
    checkpoint.save(path, checkpoint.load(path) | {"digest": "0" * 16})


def with_a_checkpoint_of_nothing(folder: Path) -> None:
    without_result(folder)
    from safetensors.torch import save_file

    save_file({"weight": torch.ones(2)}, folder / "checkpoint.safetensors")


def with_half_a_result(folder: Path) -> None:
    path = folder / "result.json"
    path.write_bytes(path.read_bytes()[:100])


def with_a_result_that_is_a_list(folder: Path) -> None:
    (folder / "result.json").write_text('["finished"]')


def with_a_result_that_says_nothing(folder: Path) -> None:
    (folder / "result.json").write_text('{"schema": 1}')


def with_half_an_identity(folder: Path) -> None:
    (folder / "run.json").write_text('{"name": "dig')


def without_identity(folder: Path) -> None:
    (folder / "run.json").unlink()


def with_a_shorter_journal(folder: Path) -> None:
    from snnsl_plugin.training import checkpoint

    without_result(folder)
    path = folder / "checkpoint.safetensors"
    tree = checkpoint.load(path)
    tree["progress"]["journal"] = 10**6
    checkpoint.save(path, tree)


#: what is wrong with the folder, the changes of the recipe, the options, and what is said
FOLDERS: dict[str, tuple[Callable[[Path], None], list[str], tuple[str, ...], str]] = {
    "a new run in it": (
        whose_recipe_differs, [], (), r"{folder} is not empty: add --resume to go on with the run it holds, or choose",
    ),
    "another seed": (
        whose_recipe_differs, ["seed=5"], ("--resume",),
        r"{folder} holds a run of another recipe \(digest \w{16}, this recipe has \w{16}\): resume with "
        r"{folder}/recipe\.yaml, or choose another --run-dir",
    ),
    "another network": (whose_recipe_differs, ["model.hidden=8"], ("--resume",), r"holds a run of another recipe"),
    "nothing to go on with": (
        without_identity, [], ("--resume",), r"{folder} holds no run to resume: leave out --resume to start one there",
    ),
    "half a checkpoint": (
        with_half_a_checkpoint, [], ("--resume",),
        r"{folder}/checkpoint\.safetensors: cannot be read as a checkpoint .*another folder with --run-dir",
    ),
    "an empty checkpoint": (
        with_no_checkpoint_at_all, [], ("--resume",), r"{folder}/checkpoint\.safetensors: cannot be read as a checkp",
    ),
    "tensors that are no checkpoint": (
        with_a_checkpoint_of_nothing, [], ("--resume",), r"{folder}/checkpoint\.safetensors: cannot be read as a check",
    ),
    "a checkpoint of another recipe": (
        with_anothers_checkpoint, [], ("--resume",),
        r"{folder}/checkpoint\.safetensors belongs to another recipe: resume with {folder}/recipe\.yaml",
    ),
    "half a result": (with_half_a_result, [], ("--resume",), r"{folder}/result\.json is damaged .*another --run-dir"),
    "a result that is a list": (
        with_a_result_that_is_a_list, [], ("--resume",), r"{folder}/result\.json is damaged .*another --run-dir",
    ),
    "a result that says nothing": (
        with_a_result_that_says_nothing, [], ("--resume",), r"{folder}/result\.json is damaged .*another --run-dir",
    ),
    "half an identity": (with_half_an_identity, [], ("--resume",), r"{folder}/run\.json is damaged .*other --run-dir"),
    "a journal that is too short": (
        with_a_shorter_journal, [], ("--resume",), r"{folder}/metrics\.jsonl: the checkpoint counts 1000000 bytes",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", FOLDERS)
def test_a_folder_that_does_not_fit_is_refused_and_nothing_in_it_is_lost(case, say, earlier):
    spoil, changes, options, sentence = FOLDERS[case]
    spoil(earlier)
    before = contents(earlier)
    said = say("train.epochs=1", *changes, options=("--run-dir", str(earlier), *options))
    assert re.search(sentence.replace("{folder}", re.escape(str(earlier))), said.sentence), said.sentence
    assert said.status == 1
    after = contents(earlier)
    assert {name: after[name] for name in before} == before


@pytest.fixture
def holder(half_done) -> Iterator[Path]:
    """A run folder that another process holds."""
    code = "import sys, filelock\nlock = filelock.FileLock(sys.argv[1])\nlock.acquire()\nprint('held', flush=True)"
    code += "\nsys.stdin.read()"
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(half_done / ".lock")],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout.readline() == "held\n"
    yield half_done
    process.communicate("")


def test_a_folder_that_another_process_holds_is_left_to_it(holder, say):
    before = contents(holder)
    said = say("train.epochs=1", options=("--run-dir", str(holder), "--resume"))
    assert said.sentence == f"{holder} is in use by another process: wait for it, or choose another --run-dir"
    assert said.status == 1
    assert contents(holder) == before


def test_resume_without_a_folder_finds_nothing_where_nothing_is(say, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    said = say(options=("--resume",))
    assert (said.status, said.sentence) == (
        1, "no unfinished run of this recipe in runs/digits-*: leave out --resume to start one"
    )  # fmt: skip
    assert list(tmp_path.iterdir()) == []


def test_a_file_in_the_place_of_the_folder_is_refused(say, tmp_path):
    (tmp_path / "file").write_text("mine")
    said = say(options=("--run-dir", str(tmp_path / "file")))
    assert (said.status, (tmp_path / "file").read_text()) == (1, "mine")
    assert said.sentence.startswith(f"{tmp_path / 'file'} ")


def test_a_folder_that_cannot_be_made_is_one_sentence(say, tmp_path):
    (tmp_path / "file").write_text("mine")
    said = say(options=("--run-dir", str(tmp_path / "file" / "run")))
    assert said.sentence.startswith(f"{tmp_path / 'file' / 'run'} cannot be written (")
    assert said.status == 1


def test_a_guide_that_is_not_finished_is_refused(say, half_done, tmp_path):
    guide = f"distillation.guide={{name: sparse, run: '{half_done}'}}"
    said = say(guide, options=("--run-dir", str(tmp_path / "run")))
    assert said.sentence == f"{half_done} holds no finished run: run its recipe first, or name another run"
    assert said.status == 1
    assert not (tmp_path / "run").exists()


def test_a_guide_of_another_shape_is_refused(say, finished, tmp_path):
    guide = f"distillation.guide={{name: sparse, run: '{finished}'}}"
    said = say(guide, pictures(tmp_path / "pictures"), options=("--run-dir", str(tmp_path / "run")))
    assert said.sentence.startswith(f"the network of {finished} does not fit this data: ")
    assert said.status == 1
    assert not (tmp_path / "run").exists()


def test_a_guide_whose_checkpoint_is_damaged_is_refused(say, earlier, tmp_path):
    path = earlier / "checkpoint.safetensors"
    path.write_bytes(path.read_bytes()[:1000])
    said = say(f"distillation.guide={{name: sparse, run: '{earlier}'}}", options=("--run-dir", str(tmp_path / "run")))
    assert said.sentence.startswith(f"{path}: cannot be read as a checkpoint (")
    assert said.status == 1


# ---------------------------------------------------------------------------------- while it is being trained


def not_finite(self, indices):
    """Pictures, one of them with a hole."""
    x = self.images[indices].float() / self.scale
    x[indices == 17] = float("nan")
    return x, self.labels[indices]


#: what is changed in the recipe and in the package, and what is said
FAILED: dict[str, tuple[list[str], dict[str, Any], str]] = {
    "a learning rate out of all bounds": (
        ["train.optimizer={name: sgd, lr: 1.0e+30, momentum: 0.0}"],
        {},
        r"NaN.*lower (the learning rate|train\.optimizer\.lr)",
    ),
    "a learning rate out of all bounds for a dense network": (
        ["train.optimizer={name: sgd, lr: 1.0e+38}", "pruning={type: dense}"],
        {},
        r"the loss is (nan|inf) at step \d+ \(epoch \d\): lower train\.optimizer\.lr, or set train\.clip",
    ),
    "NaN in the input": (
        [],
        {"snnsl_plugin.datasets._tensors.TensorImages.batch": not_finite},
        r"NaN or infinity in picture 17 \(index 17\); remove or repair what is named, then run again",
    ),
    "a threshold that no weight reaches": (
        ["pruning={type: snnsl.stds, threshold: {name: sine, first: 0.0, last: 50.0}}"],
        {},
        r"(keep none of its \d+ weights|no path leads from the input to the output).*lower the threshold",
    ),
}


@pytest.mark.parametrize("case", FAILED)
def test_a_run_that_fails_says_so_in_its_folder(case, say, tmp_path, monkeypatch):
    changes, patches, sentence = FAILED[case]
    for target, value in patches.items():
        monkeypatch.setattr(target, value)
    run_dir = tmp_path / "run"
    said = say(*changes, options=("--run-dir", str(run_dir)))
    assert re.search(sentence, said.sentence), said.sentence
    assert said.status == 2
    result = json.loads((run_dir / "result.json").read_text())
    assert (result["status"], result["error"]) == ("failed", said.sentence)
    assert (run_dir / "recipe.yaml").is_file()


@pytest.mark.usefixtures("undrawn")
def test_a_run_that_failed_goes_on_when_its_trouble_is_gone(say, tiny, tmp_path, monkeypatch, comparable):
    run_dir = tmp_path / "run"
    with monkeypatch.context() as broken:
        broken.setattr("snnsl_plugin.datasets._tensors.TensorImages.batch", not_finite)
        assert say(options=("--run-dir", str(run_dir))).status == 2
    went_on = runner.run(tiny(), run_dir=run_dir, resume=True, name="digits")
    whole = runner.run(tiny(), run_dir=tmp_path / "whole", name="digits")
    assert comparable(went_on) == comparable(whole)


@pytest.mark.usefixtures("undrawn")
def test_a_disk_that_is_full_is_one_sentence_and_the_run_goes_on_later(
    tiny, tiny_words, tmp_path, monkeypatch, capsys, comparable
):
    run_dir = tmp_path / "run"

    def full(*given: Any, **options: Any) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as broken, contextlib.suppress(OSError):
        broken.setattr("snnsl_plugin.training.checkpoint.save_file", full)
        assert main(["run", "digits", *tiny_words(), "-q", "--run-dir", str(run_dir)]) == 2
    err = capsys.readouterr().err
    assert "No space left on device" in err
    assert "Traceback" not in err
    assert json.loads((run_dir / "result.json").read_text())["status"] == "failed"
    assert runner.run(tiny(), run_dir=run_dir, resume=True, name="digits")["status"] == "finished"
