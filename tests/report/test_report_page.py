import base64
import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from plotly.offline import get_plotlyjs
from synthetic_run import (
    RECIPE,
    epochs,
    evaluation,
    mixed_evaluation,
    results,
    write_epochs,
    write_json,
    write_run,
    write_sample,
)
from upath import UPath

from yolo_dist.errors import DataError
from yolo_dist.report import build_report
from yolo_dist.report.page import _subject
from yolo_dist.report.run import Run
from yolo_dist.report.words import SPACE

VOID_TAGS = {"meta", "img", "br", "link"}
PLANTED = '</script><script>alert("x")</script><img src=x onerror=alert(1)>'


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return write_run(tmp_path / "cells")


def page_of(run: Path | UPath) -> str:
    """The page without the plotting library's own text."""
    text = build_report(run).read_text(encoding="utf-8")
    assert text.count(get_plotlyjs()) == 1
    return text.replace(get_plotlyjs(), "").replace(SPACE, " ")


class Structure(HTMLParser):
    """Headings, and tags that were opened and not closed."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.headings: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID_TAGS:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] == "h2" and data.strip():
            self.headings.append(data.strip())


def test_a_whole_run_has_every_section_and_well_formed_tags(run: Path) -> None:
    structure = Structure(page_of(run))
    assert structure.headings == [
        *("Stages", "Training", "Sparsity", "Pruning", "Accuracy", "Detections", "Recipe"),
    ]
    assert structure.open == []


def test_the_page_shows_the_numbers_of_the_run(run: Path) -> None:
    page = page_of(run)
    assert "2.2 % of the parameters, 4.7× as fast, mAP50 −0.003" in page
    for number in ("0.866", "0.512", "8.67 M", "2.05 G", "34.7 MB", "36.9 ms", "15 min 12 s", "24 images/s", "cached"):
        assert f">{number}<" in page
    for number in ("0.863", "191 k", "171 M", "776 kB", "7.80 ms", "−98 %", "3 min 07 s"):
        assert f">{number}<" in page
    assert "3.1e-06" in page
    assert "0.764 masked only" in page
    assert "precision 0.840" in page


@pytest.mark.parametrize(
    ("model", "subject"),
    [
        ({"zoo": "yolov3-tiny", "width": 1.0}, "yolov3-tiny on bccd at 320×256 px"),
        ({"zoo": "yolov3-tiny", "width": 0.5}, "yolov3-tiny × 0.5 on bccd at 320×256 px"),
        ({"cfg": "/nets/tiny.cfg", "width": 1.0}, "tiny.cfg on bccd at 320×256 px"),
        ({"bundle": "https://me:secret@models.example/sparse?sig=abc"}, "sparse on bccd at 320×256 px"),
        ({"bundle": "runs/hand/stages/sparse/"}, "sparse on bccd at 320×256 px"),
    ],
)
def test_the_page_says_what_was_trained_on_what(model: dict[str, Any], subject: str) -> None:
    recipe = {"model": model, "dataset": "bccd", "image_size": [320, 256]}
    assert _subject(Run("cells", recipe, "", [], {})) == subject


def test_the_page_needs_nothing_from_outside(run: Path) -> None:
    page = page_of(run)
    addresses = [
        value
        for _, attributes in Structure(page).tags
        for name, value in attributes.items()
        if name in ("src", "href", "srcset", "data", "action", "poster")
    ]
    assert addresses
    assert all(address and address.startswith("data:") for address in addresses)
    assert not re.search(r"@import|url\(|fetch\(|XMLHttpRequest|https?://", page)
    assert "default-src 'none'" in page


def test_pictures_of_the_first_and_the_last_model_stand_side_by_side(run: Path) -> None:
    page = page_of(run)
    sources = re.findall(r'<img src="data:image/jpeg;base64,([^"]+)"', page)
    expected = [run / "stages" / stage / "samples" / "cell-1.jpg" for stage in ("base", "tuned")]
    assert [base64.b64decode(source) for source in sources] == [path.read_bytes() for path in expected]
    assert re.findall(r"<figcaption>(.*?)</figcaption>", page) == ["base", "tuned"]


def test_a_run_on_a_mixture_has_a_row_for_each_dataset(run: Path) -> None:
    assert "By dataset" not in page_of(run)
    for stage, map50 in (("base", 0.7), ("tuned", 0.75)):
        write_json(run / "stages" / stage / "evaluation.json", mixed_evaluation(map50))
    mix = "dataset: {mix: {street: 0.7, cards/home.yaml: 0.3}}"
    (run / "recipe.yaml").write_text(RECIPE.replace("dataset: bccd", mix))
    page = page_of(run)
    assert "yolov3-tiny on street + cards/home.yaml at 320×256 px" in page
    rows = re.findall(r'<th scope="row">(\w+)<small>(\d+ images, \d class\w*)</small>', page)
    assert rows == [("street", "30 images, 1 class"), ("home", "87 images, 2 classes")]
    table = page[page.index("By dataset") : page.index("0 objects")]
    assert re.findall(r'mAP50"><span class="number">([\d.]+)</span><small class="better">([+−\d.]+)<', table) == [
        ("0.650", "+0.050"),
        ("0.850", "+0.050"),
    ]


def test_everything_from_files_is_escaped(tmp_path: Path) -> None:
    row = results()[0] | {"id": "base", "kind": PLANTED}
    write_json(tmp_path / "results.json", [row])
    write_json(tmp_path / "stages" / "base" / "evaluation.json", evaluation(0.8, classes=(PLANTED, "WBC")))
    write_epochs(tmp_path, [line | {"stage": PLANTED, "loss": {PLANTED: 1.0}} for line in epochs("base", 2)])
    (tmp_path / "recipe.yaml").write_text(json.dumps({"name": PLANTED, "dataset": PLANTED, "model": PLANTED}))
    page = page_of(tmp_path)
    assert "<script>alert" not in page
    assert "<img src=x" not in page
    assert "&lt;script&gt;alert" in page
    assert not any(attributes.get("onerror") for _, attributes in Structure(page).tags)


def test_a_stage_under_way_has_curves_before_it_has_results(tmp_path: Path) -> None:
    write_json(tmp_path / "results.json", results()[:1])
    write_epochs(tmp_path, [*epochs("base", 3), *epochs("sparse", 2, gauge=True)])
    page = page_of(tmp_path)
    assert Structure(page).headings == ["Stages", "Training", "Sparsity"]
    assert "mAP50 0.866 with 8.67 M parameters" in page


def test_epochs_of_a_stage_that_the_recipe_no_longer_has_are_left_out(run: Path) -> None:
    write_epochs(run, [*epochs("base", 3), *epochs("renamed", 3, gauge=True)])
    (run / "recipe.yaml").write_text(RECIPE.replace("{id: sparse}", "{id: renamed}"))
    assert "Sparsity" in Structure(page_of(run)).headings
    (run / "recipe.yaml").write_text(RECIPE)
    assert "Sparsity" not in Structure(page_of(run)).headings


@pytest.mark.parametrize(
    ("missing", "heading"),
    [
        ("metrics.jsonl", "Training"),
        ("stages/pruned/proof.json", "Pruning"),
        ("recipe.yaml", "Recipe"),
    ],
)
def test_a_missing_file_takes_only_its_section_with_it(run: Path, missing: str, heading: str) -> None:
    (run / missing).unlink()
    headings = Structure(page_of(run)).headings
    assert heading not in headings
    assert {"Stages", "Accuracy", "Detections"} <= set(headings)


def test_a_run_of_one_bare_stage_has_a_page(tmp_path: Path) -> None:
    write_json(tmp_path / "results.json", results()[:1])
    assert Structure(page_of(tmp_path)).headings == ["Stages"]


def test_a_quantised_stage_shows_the_noise_of_its_layers(run: Path) -> None:
    layers = [{"layer": 3, "kind": "yolo", "signal": 2.0, "noise": 0.02, "snr_db": 20.0}]
    write_json(run / "stages" / "tuned" / "noise.json", {"images": 8, "layers": layers})
    page = page_of(run)
    assert "Quantisation" in " ".join(Structure(page).headings)
    assert 'id="noise-1"' in page


@pytest.mark.parametrize("rows", [[], [{"id": "onnx", "kind": "export"}]])
def test_a_run_without_a_model_says_so(tmp_path: Path, rows: list[dict[str, str]]) -> None:
    write_json(tmp_path / "results.json", rows)
    assert "No model yet" in page_of(tmp_path)


def test_pruning_shows_the_network_before_it_layer_by_layer(run: Path) -> None:
    page = page_of(run)
    section = page[page.index("The network before pruning") : page.index("<h2>Accuracy")]
    assert 'id="network-1"' in section
    assert "min-width:42px" in section
    assert r"4 \u2192 3 channels" in section
    assert "closes a residual block with 1, 2" in section
    (run / "stages" / "sparse" / "model.cfg").unlink()
    assert "The network before pruning" not in page_of(run)


def test_samples_of_one_stage_alone_are_shown(tmp_path: Path) -> None:
    write_json(tmp_path / "results.json", results())
    write_sample(tmp_path / "stages" / "base" / "samples" / "a.jpg", 10)
    write_sample(tmp_path / "stages" / "base" / "samples" / "b.jpg", 20)
    assert page_of(tmp_path).count("<img ") == 2


def test_many_classes_are_folded_away(tmp_path: Path) -> None:
    names = tuple(f"class {number}" for number in range(80))
    write_json(tmp_path / "results.json", results()[:1])
    write_json(tmp_path / "stages" / "base" / "evaluation.json", evaluation(0.8, classes=names))
    page = page_of(tmp_path)
    assert "All 80 classes" in page
    assert page.index("class 79") < page.index(">class 0<"), "the most frequent class comes first"


def test_a_run_at_a_url_gets_its_page_there(tmp_path: Path) -> None:
    write_run(tmp_path / "local")
    remote = UPath("memory://runs/cells")
    remote.fs.put(str(tmp_path / "local"), remote.path, recursive=True)
    page = build_report(remote)
    assert str(page) == "memory://runs/cells/report.html"
    assert page.read_text(encoding="utf-8").count("<img ") == 2
    remote.fs.rm(remote.path, recursive=True)


def test_a_broken_run_leaves_the_page_before_it_alone(run: Path) -> None:
    before = build_report(run).read_bytes()
    (run / "results.json").write_text("[{")
    with pytest.raises(DataError, match=r"results\.json"):
        build_report(run)
    assert (run / "report.html").read_bytes() == before


def test_a_browser_draws_every_figure(run: Path, tmp_path: Path) -> None:
    browser = shutil.which("chromium")
    if browser is None:
        pytest.skip("chromium is not installed")
    page = build_report(run)
    flags = "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking"
    command = [browser, *flags.split(), "--disable-component-update", "--disable-sync", "--virtual-time-budget=5000"]
    command += [f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom", f"file://{page.path}"]
    drawn = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout
    axes = set(re.findall(r'<div id="([a-z0-9-]+)" class="plotly-graph-div js-plotly-plot"', drawn))
    assert axes == {"loss", "accuracy", "gamma-1", "shares-1", "network-1", "curve-mean", "curve-class"}
    assert drawn.count('<g class="cartesianlayer">') == len(axes)
