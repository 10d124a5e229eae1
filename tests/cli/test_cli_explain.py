"""`prune --explain`: what pruning may take, for a network of the zoo, a bare cfg, a Darknet pair and a bundle."""

from pathlib import Path

import pytest
import tiny
from command_line import done, refused, yolo_dist


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A cfg and a bundle."""
    tiny.write_cfg(tmp_path)
    tiny.make_bundle().save(tmp_path / "bundle")
    return tmp_path


def rows_of(text: str) -> list[list[str]]:
    """The cells of each line of the tables."""
    return [[cell.strip() for cell in line.split("│")[1:-1]] for line in text.splitlines() if line.startswith("│")]


def test_a_bare_cfg_is_explained_as_a_table(folder: Path) -> None:
    out = done("prune", "--explain", "--cfg", folder / "tiny.cfg").out
    assert out.startswith(f"Channels of {folder}/tiny.cfg, 6 layers, scope classic")
    assert rows_of(out) == [
        ["0", "8", "", "1", "yes"],
        ["1", "16", "2", "3", "yes"],
        ["3", "16", "", "4", "yes"],
        ["4", "24", "", "5", "no: without batch normalisation (layer 4); head (layer 5)"],
    ]
    assert "normal chooses from 40 of 64 channels, in 3 sets" in out
    assert "no shortcuts, so no residual blocks" in out


def test_a_network_of_the_zoo_is_explained_by_its_name() -> None:
    rows = rows_of(done("prune", "--explain", "--model", "yolov3tiny-mobilenet-small").out)
    assert ["1", "16", "2, 3", "4", "no: layer 1 feeds layer 2 [depthwise] (classic scope)"] in rows
    assert ["11", "7", "8–10", "yes"] in rows
    wide = done("prune", "--explain", "--model", "yolov3tiny-mobilenet-small", "--scope", "full", "--json").json()
    assert wide["scope"] == "full"
    assert not any("classic scope" in reason for one in wide["sets"] for reason in one["reasons"])


def test_with_weights_and_a_percent_the_plan_of_the_method_is_shown(folder: Path) -> None:
    words = ["prune", "--explain", "--method", "slim", "--percent", "0.5"]
    shown = done(*words, "--model", folder / "bundle", "--json").json()
    assert (shown["method"], shown["percent"]) == ("slim", 0.5)
    kept = [one["kept"] for one in shown["sets"]]
    assert sum(kept[:3]) == 40 - 21, "|γ| > t leaves out the one at the threshold"
    assert kept[3] == 24
    pair = ["--cfg", folder / "bundle" / "model.cfg", "--weights", folder / "bundle" / "model.weights"]
    assert done(*words, *pair, "--json").json() == shown
    out = done(*words, "--model", folder / "bundle").out
    assert "as slim at 0.5 leaves them" in " ".join(out.split())  # a long path breaks the line
    assert [row[2] for row in rows_of(out)] == [str(count) for count in kept]


def test_without_a_percent_nothing_is_planned(folder: Path) -> None:
    shown = done("prune", "--explain", "--model", folder / "bundle", "--json").json()
    assert "method" not in shown
    assert {one["kept"] for one in shown["sets"]} == {None}


def test_a_percent_without_weights_is_said_to_need_them(folder: Path) -> None:
    outcome = yolo_dist("prune", "--explain", "--cfg", folder / "tiny.cfg", "--percent", "0.5", "--json")
    assert (outcome.code, outcome.json()["sets"][0]["kept"]) == (0, None)
    assert "what normal would keep depends on weights" in outcome.err


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ([], "options: give either --model BUNDLE, or --cfg FILE --weights FILE"),
        (["--model", "yolov4", "--cfg", "a.cfg"], "options: give either --model BUNDLE, or --cfg FILE --weights FILE"),
        (["--cfg", "missing.cfg"], "missing.cfg: cannot be read"),
        (["--model", "missing"], "missing: no bundle.json there"),
        (["--model", "yolov4", "--scope", "wide"], "options: scope: "),
        (
            ["--model", "yolov4", "--target-macs", "0.5"],
            "options: --explain plans a percent, not target_macs; take --dry-run",
        ),
    ],
)
def test_what_cannot_be_explained_is_refused(options: list[str], problem: str) -> None:
    (error,) = refused("prune", "--explain", *options)
    assert error.startswith(problem)


@pytest.mark.parametrize("amount", ["--percent=0.5", "--shortcuts=1"])
def test_a_plan_that_the_method_cannot_make_is_an_error(folder: Path, amount: str) -> None:
    (error,) = refused("prune", "--explain", "--model", folder / "bundle", "--method", "layer", amount)
    assert error.startswith("method layer: this network has no shortcuts")


@pytest.mark.parametrize("given", [[], ["--shards", "data"], ["--out", "pruned"]])
def test_pruning_needs_images_and_a_place_for_the_result(given: list[str]) -> None:
    assert refused("prune", "--model", "a", *given) == [
        "options: give --shards and --out (or --dry-run), or --explain to only look at what may be cut"
    ]
