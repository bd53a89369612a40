"""The report of a run, drawn from a made-up but complete run folder."""

import json
import math
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
import torch
from matplotlib.image import imread
from safetensors.torch import save_file

from snnsl_plugin.errors import BadCheckpoint, BadData, MissingData
from snnsl_plugin.metrics.definitions import DEFINITIONS
from snnsl_plugin.metrics.energy import energy_pj
from snnsl_plugin.recipe import figures
from snnsl_plugin.recipe.report import write
from snnsl_plugin.tracking.journal import Journal

SHAPES = {"0": (32, 1, 3, 3), "4": (64, 32, 3, 3), "9": (128, 256), "12": (10, 128)}
NEURONS = {"2": 0.21, "6": 0.12, "11": 0.08}


def journal(folder: Path, *, sparse: bool, epochs: int = 12, neurons: dict[str, float] = NEURONS) -> None:
    g = torch.Generator().manual_seed(int(sparse))
    total = sum(math.prod(shape) for shape in SHAPES.values())
    with Journal(folder / "metrics.jsonl") as out:
        out.write("started", 0, recipe="digits")
        for epoch in range(1, epochs + 1):
            done = epoch / epochs
            density = 0.1 + 0.9 * (1 - min(done / 0.8, 1)) ** 3 if sparse else 1.0
            if sparse and done <= 0.8:
                for step in (epoch * 20 - 15, epoch * 20 - 5):
                    metrics = {"density": density, "connections": total * density * 0.97}
                    for name, shape in SHAPES.items():
                        swapped = math.prod(shape) * density * 0.2 * (1 - done)
                        metrics |= {
                            f"density/{name}": density,
                            f"born/{name}": swapped,
                            f"dropped/{name}": swapped + 50,
                        }
                    out.write("mask_update", step, metrics)
            noise = float(torch.rand((), generator=g)) * 0.02
            loss, accuracy = 2.3 * math.exp(-3 * done) + noise, 0.99 - 0.8 * math.exp(-5 * done) - noise
            metrics = {"loss/train": loss * 0.9, "loss/validation": loss, "accuracy/train": accuracy + 0.01,
                       "accuracy/validation": accuracy, "density": density, "lr": 1e-3, "seconds": 2.0}  # fmt: skip
            out.write(
                "epoch",
                epoch * 20,
                metrics | {f"rate/{n}": r * (1.3 - done / 2) for n, r in neurons.items()},
                epoch=epoch,
            )


def result(density: float, dense: dict | None) -> dict:
    sizes = {name: math.prod(shape) for name, shape in SHAPES.items()}
    total = sum(sizes.values())
    kept = {name: round(n * density) for name, n in sizes.items()}
    all_kept = sum(kept.values())
    acs, macs = 186_000 * density + 3_000, 31_000 * density + 1_000
    layers = {
        n: {"requested": density, "achieved": kept[n] / sizes[n], "kept": kept[n], "total": sizes[n]} for n in sizes
    }
    return {
        "schema": 1,
        "recipe": "digits <b>&",
        "digest": "9f2c41d07b3e",
        "seed": 0,
        "status": "finished",
        "accuracy": {
            "test": 0.985 if density == 1 else 0.9722,
            "test_last": 0.97,
            "validation": 0.98,
            "dense_test": dense["accuracy"]["test"] if dense else None,
        },
        "density": {
            "weights": {"requested": density, "achieved": all_kept / total, "kept": all_kept, "total": total},
            "connections": {"live": round(total * density * 0.97), "forward": round(total * density * 0.99)},
            "layers": layers,
        },
        "regrown": 4210,
        "synops_per_sample": acs,
        "macs_per_sample": macs,
        "energy_pj_per_sample": energy_pj(
            input_macs=macs, input_macs_once=macs / 4, other_macs=0, acs=acs, neuron_updates=12800
        ),
        "firing_rate": NEURONS,
        "silent": {"2": 0.02, "6": 0.11, "11": 0.3},
        "parameters": {"dense": total + 500, "kept": all_kept + 500},
        "epochs": 12,
        "selected_epoch": 11,
        "wall_s": 31.2,
        "seconds_per_epoch": 2.1,
        "peak_memory_mib": 612.0,
        "skipped_samples": 0,
        "mlflow_run_id": None,
        "versions": {"python": "3.11.9", "torch": "2.12.1"},
        "dense": dense,
    }


def make_run(folder: Path) -> Path:
    journal(folder, sparse=True)
    journal(folder / "dense", sparse=False)
    (folder / "result.json").write_text(json.dumps(result(0.1, result(1.0, None))))
    (folder / "recipe.yaml").write_text(
        "schema: 1\nseed: 0\npruning: {type: snnsl.drop_grow}  # <script>alert(1)</script>\n"
    )
    g = torch.Generator().manual_seed(0)
    masks = {f"masks/{n}.weight": torch.rand(shape, generator=g) < 0.1 for n, shape in SHAPES.items()}
    save_file({**masks, "model/0.weight": torch.ones(2)}, folder / "checkpoint.safetensors")
    return folder


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return make_run(tmp_path / "run")


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The page of the complete run, drawn once."""
    return write(make_run(tmp_path_factory.mktemp("drawn"))).read_text()


class Tags(HTMLParser):
    """Checks that tags close, and collects them with their attributes."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open, self.seen = [], []
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.seen.append((tag, dict(attrs)))
        if tag not in ("meta", "img", "br", "link", "input"):
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.seen.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_one_file_holds_table_curves_masks_definitions_and_recipe(text):
    for words in ("97.22 %", "98.50 %", "Dense against sparse", "Connections born and dropped", "Firing rate per layer",
                  "9f2c41d07b3e", "torch 2.12.1", "snnsl.drop_grow", "epoch 11 selected", "of 18,432"):  # fmt: skip
        assert words in text, words
    assert all(sentence.split(";")[0][:40] in text for sentence in DEFINITIONS.values())
    tags = Tags(text).seen
    assert sum(tag == "svg" for tag, _ in tags) == 6
    assert sum(tag == "img" for tag, _ in tags) == len(SHAPES)
    assert [attributes["alt"].split(":")[0] for tag, attributes in tags if tag == "img"] == [
        f"Mask of {name}" for name in SHAPES
    ]


def test_it_needs_nothing_from_outside_and_runs_no_script(text):
    tags = Tags(text).seen
    assert not {"script", "link", "iframe", "object"} & {tag for tag, _ in tags}
    for tag, attributes in tags:
        for name in ("src", "href", "xlink:href"):
            assert attributes.get(name, "#").startswith(("#", "data:")), (tag, attributes[name])
    assert not re.search(r"url\((?!#)|@import|https?://(?!www\.w3\.org/)", text)


def test_every_picture_has_a_text_and_every_link_a_target(text):
    tags = Tags(text).seen
    assert all(attributes["alt"] for tag, attributes in tags if tag == "img")
    assert all(attributes["aria-label"] for tag, attributes in tags if tag == "svg")
    targets = {attributes["id"] for _, attributes in tags if "id" in attributes}
    assert all(attributes["href"][1:] in targets for tag, attributes in tags if tag == "a" and "href" in attributes)


def test_text_of_the_run_is_escaped(text):
    assert "digits &lt;b&gt;&amp;" in text
    assert "<script>" not in text


def test_both_themes_colour_everything(text):
    assert "prefers-color-scheme: dark" in text
    assert not re.search(r"#0a0a0\d|#010101|#020202|#030303", text)
    used, (light, dark) = set(re.findall(r"var\((--\w+)", text)), re.findall(r":root \{(.*?)\}", text, re.S)
    assert used <= set(re.findall(r"(--\w+):", light))
    assert set(re.findall(r"(--\w+):", light)) == set(re.findall(r"(--\w+):", dark))


def test_the_same_run_gives_the_same_bytes(run):
    path = write(run)
    assert path == run / "report.html"
    first = path.read_bytes()
    assert write(run).read_bytes() == first
    assert {p.name for p in (run / "figures").iterdir()} == {
        *(f"{word}.svg" for word in ("accuracy", "loss", "density", "turnover", "rates", "energy")),
        *(f"mask-{name}.png" for name in SHAPES),
    }
    assert not list(run.rglob("*.partial"))


def test_a_run_without_dense_baseline_masks_or_updates_is_drawn_as_far_as_it_goes(tmp_path):
    journal(tmp_path, sparse=False)
    (tmp_path / "result.json").write_text(json.dumps(result(1.0, None)))
    text = write(tmp_path).read_text()
    assert "Dense against sparse" not in text
    assert "Masks</h2>" not in text
    assert "born" not in text.split("What the numbers mean")[0].split("How it went")[1]


@pytest.mark.parametrize("status", ["failed", "interrupted", None])
def test_a_run_that_did_not_finish_shows_its_curves_and_why(tmp_path, status):
    journal(tmp_path, sparse=True, epochs=3)
    if status:
        broken = {"schema": 1, "name": "digits", "digest": "d", "seed": 3, "status": status, "error": "loss is NaN"}
        (tmp_path / "result.json").write_text(json.dumps(broken))
    text = write(tmp_path).read_text()
    assert "There is no result yet" in text
    assert (status or "unfinished") in text
    assert ("loss is NaN" in text) == bool(status)
    assert text.count("<svg") == 5


def test_many_layers_make_a_heat_map(tmp_path):
    journal(tmp_path, sparse=False, neurons={f"layer{i}.sn": 0.01 * i for i in range(20)})
    svg = figures.rates([json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()])
    assert "layer19.sn" in svg
    assert "data:image/png" in svg


def test_one_epoch_is_a_point(tmp_path):
    journal(tmp_path, sparse=True, epochs=1)
    assert write(tmp_path).read_text().count("<svg") >= 3


def test_a_mask_is_drawn_weight_by_weight(tmp_path):
    mask = torch.tensor([[[True, False]], [[False, False]], [[True, True]]])
    (tmp_path / "m.png").write_bytes(figures.mask_png(mask))
    assert (imread(tmp_path / "m.png")[..., 3] == mask.flatten(1).numpy()).all()


def test_a_large_mask_is_drawn_by_density(tmp_path):
    mask = torch.zeros(512, 4608, dtype=torch.bool)
    mask[:256] = True
    (tmp_path / "m.png").write_bytes(figures.mask_png(mask))
    picture = imread(tmp_path / "m.png")
    assert picture.shape == (192, 576, 4)
    assert (picture[:96, :, 3] == 1).all()
    assert (picture[96:, :, 3] == 0).all()
    assert figures.mask_png(torch.zeros(3, 4, dtype=torch.bool))


def test_a_folder_that_is_no_run_and_damaged_files_say_so(run, tmp_path):
    with pytest.raises(MissingData, match="no run folder"):
        write(tmp_path / "run" / "figures-of-nothing")
    (run / "checkpoint.safetensors").write_bytes(b"short")
    with pytest.raises(BadCheckpoint, match=r"checkpoint\.safetensors"):
        write(run)
    (run / "result.json").write_text("{")
    with pytest.raises(BadData, match=r"result\.json"):
        write(run)
