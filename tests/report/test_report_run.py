import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from synthetic_run import EDGES, NETWORK, RECIPE, epochs, plan, results, write_epochs, write_json, write_run
from upath import UPath

from yolo_dist.compress.pruning import PrunePlan
from yolo_dist.compress.pruning import proof as pruning_proof
from yolo_dist.compress.pruning.proof import Change
from yolo_dist.compress.residual import ResidualBlock
from yolo_dist.compress.sparsity import measure_sparsity
from yolo_dist.errors import DataError
from yolo_dist.report.run import Gauge, Plan, Proof, read_run


def test_a_whole_run_is_read_with_all_its_parts(tmp_path: Path) -> None:
    run = read_run(UPath(write_run(tmp_path)))
    assert run.name == "cells"
    assert run.recipe_text == RECIPE
    assert [stage.result.id for stage in run.models] == ["base", "sparse", "pruned", "tuned"]
    assert {name: len(lines) for name, lines in run.epochs.items()} == {"base": 3, "sparse": 3, "tuned": 2}
    pruned = run.stages[2]
    assert pruned.proof is not None
    assert pruned.pruning is not None
    assert (pruned.pruning.cfg, pruned.pruning.scope) == (NETWORK, "classic")
    assert pruned.pruning.plan.masks()[4].tolist() == [False, False, True, False, False, True]
    assert pruned.evaluation is not None
    assert pruned.evaluation.per_class["WBC"].objects == 20
    assert list(pruned.samples) == ["cell-1.jpg"]


def test_of_an_epoch_that_ran_twice_the_last_line_counts(tmp_path: Path) -> None:
    write_json(tmp_path / "results.json", results())
    again = epochs("base", 3)[1] | {"map50": 0.123}
    write_epochs(tmp_path, [*epochs("base", 3), again])
    read = read_run(UPath(tmp_path)).epochs["base"]
    assert [(epoch.epoch, epoch.map50) for epoch in read] == [(1, 0.8), (2, 0.123), (3, 0.8)]


def test_a_line_that_is_still_being_written_is_left_out(tmp_path: Path) -> None:
    write_json(tmp_path / "results.json", results())
    write_epochs(tmp_path, epochs("base", 2))
    whole = (tmp_path / "metrics.jsonl").read_text()
    (tmp_path / "metrics.jsonl").write_text(whole + '{"stage": "base", "epo')
    assert len(read_run(UPath(tmp_path)).epochs["base"]) == 2


def test_a_run_without_a_recipe_is_named_after_its_folder(tmp_path: Path) -> None:
    write_json(tmp_path / "hand" / "results.json", results()[:1])
    run = read_run(UPath(tmp_path / "hand"))
    assert (run.name, run.recipe, run.epochs, run.stages[0].samples) == ("hand", {}, {}, {})


def test_a_stage_without_a_model_is_no_model(tmp_path: Path) -> None:
    export = {"id": "onnx", "kind": "export", "map": None, "parameters": None, "seconds": 3.0, "cached": False}
    write_json(tmp_path / "results.json", [*results(), export])
    run = read_run(UPath(tmp_path))
    assert len(run.stages) == 5
    assert [stage.result.id for stage in run.models] == ["base", "sparse", "pruned", "tuned"]


@pytest.mark.parametrize(
    ("file", "content", "place"),
    [
        pytest.param("results.json", "[{", "results.json: Invalid JSON", id="truncated results"),
        pytest.param("results.json", '{"id": "base"}', "results.json: Input should be a valid array", id="not a list"),
        pytest.param("results.json", '[{"kind": "train"}]', "results.json: 0.id: Field required", id="no id"),
        pytest.param("results.json", b"\xff[]", "results.json: byte 0 is not UTF-8", id="not text"),
        pytest.param("metrics.jsonl", "{\n{}\n", "metrics.jsonl line 1: Invalid JSON", id="broken line"),
        pytest.param("metrics.jsonl", '{"epoch": 1}\n', "metrics.jsonl line 1: stage: Field required", id="no stage"),
        pytest.param("recipe.yaml", "name: [", "recipe.yaml line 1: not YAML", id="broken recipe"),
        pytest.param("recipe.yaml", "- a\n", "recipe.yaml: holds a list", id="recipe without keys"),
        pytest.param("stages/tuned/evaluation.json", "{}", "evaluation.json: images: Field required", id="no metrics"),
        pytest.param("stages/pruned/proof.json", "nothing", "proof.json: Invalid JSON", id="broken proof"),
        pytest.param("stages/pruned/plan.json", '{"layers": 3}', "plan.json: layers: Input should", id="broken plan"),
    ],
)
def test_a_broken_file_is_named_with_its_place(tmp_path: Path, file: str, content: str | bytes, place: str) -> None:
    path = write_run(tmp_path) / file
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(DataError) as raised:
        read_run(UPath(tmp_path))
    assert str(path.parent) in str(raised.value)
    assert place in str(raised.value)
    assert "\n" not in str(raised.value)


def test_the_gauge_of_sparse_training_is_what_the_report_reads() -> None:
    gammas = {0: np.array([5e-4, 5e-3, 0.5, 1.0], np.float32)}
    gauge = Gauge.model_validate_json(json.dumps(measure_sparsity(gammas).as_json()))
    assert gauge.below == {"1e-2": 0.5, "1e-3": 0.25}
    assert gauge.quantiles[0.5] == pytest.approx(0.2525)
    assert gauge.histogram is not None
    assert sum(gauge.histogram.counts) == 4


def test_the_proof_of_pruning_is_what_the_report_reads() -> None:
    change = Change(before=4.0, after=1.0)
    written = pruning_proof.Proof(
        "normal", 0.5, 0.01, 8, 1e-6, "float32", 1e-6, 1e-4, change, change, change, change, ()
    )
    read = Proof.model_validate_json(json.dumps(written.as_json()))
    assert (read.parameters.before, read.latency_ms.after, read.map50.after) == (4, 1, None)
    measured = Proof.model_validate_json(json.dumps(written.with_map50(0.8, 0.7).as_json()))
    assert (measured.map50.before, measured.map50.after) == (0.8, 0.7)


def test_the_plan_of_pruning_is_what_the_report_reads() -> None:
    block = ResidualBlock(shortcut=3, identity=0, feeding=2, branch=(1, 2))
    masks = {1: np.array([True, False, True, True]), 4: np.zeros(6, bool)}
    written = PrunePlan.from_masks(masks, method="slim", percent=0.5, threshold=0.1).without([block], method="slim")
    read = Plan.model_validate_json(json.dumps(written.as_json()))
    assert {layer: mask.tolist() for layer, mask in read.masks().items()} == {
        layer: mask.tolist() for layer, mask in masks.items()
    }
    assert read.blocks == (block,)
    assert read.fits(NETWORK)


@pytest.mark.parametrize(
    ("recipe", "start"),
    [
        ("stages: [{id: base}, {id: sparse}, {id: pruned}]", "stages/sparse"),
        ("stages: [{id: base}, {id: sparse}, {id: pruned, from: base, scope: full}]", "stages/base"),
        ("stages: [{id: pruned}]", "initial"),
    ],
)
def test_the_network_before_pruning_is_that_of_the_stage_it_started_from(
    tmp_path: Path, recipe: str, start: str
) -> None:
    run = write_run(tmp_path)
    (run / "recipe.yaml").write_text(recipe)
    (run / start).mkdir(exist_ok=True)
    (run / "stages" / "sparse" / "model.cfg").rename(run / start / "model.cfg")
    pruning = read_run(UPath(run)).stages[2].pruning
    assert pruning is not None
    assert pruning.cfg == NETWORK
    assert pruning.scope == ("full" if "full" in recipe else "classic")


@pytest.mark.parametrize("missing", ["recipe.yaml", "stages/pruned/plan.json", "stages/sparse/model.cfg"])
def test_without_one_of_its_files_a_pruning_is_not_shown(tmp_path: Path, missing: str) -> None:
    run = write_run(tmp_path)
    (run / missing).unlink()
    stage = read_run(UPath(run)).stages[2]
    assert (stage.pruning, stage.proof is None) == (None, False)


@pytest.mark.parametrize(
    "change",
    [
        {"layers": {"1": {"channels": 5, "keep": [0]}}},
        {"layers": {"3": {"channels": 8, "keep": [0]}}},
        {"blocks": [{"shortcut": 9, "identity": 6, "feeding": 8, "branch": [7, 8]}]},
    ],
)
def test_a_plan_of_another_network_is_refused(tmp_path: Path, change: dict[str, Any]) -> None:
    run = write_run(tmp_path)
    write_json(run / "stages" / "pruned" / "plan.json", plan() | change)
    with pytest.raises(DataError, match=r"plan\.json: is not about the network in .*sparse/model\.cfg; run the recipe"):
        read_run(UPath(run))


def test_a_histogram_whose_edges_do_not_fit_its_counts_is_refused(tmp_path: Path) -> None:
    line = epochs("sparse", 1, gauge=True)[0]
    line["gauge"]["histogram"]["edges"] = [*EDGES, 100.0]
    write_json(tmp_path / "results.json", results())
    (tmp_path / "metrics.jsonl").write_text(json.dumps(line) + "\n")
    with pytest.raises(DataError, match=r"metrics\.jsonl line 1: gauge\.histogram: 6 counts need 7 edges, not 8"):
        read_run(UPath(tmp_path))


def test_a_folder_without_results_says_which_file_is_missing_and_how_to_get_it(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"results\.json: no such file; .*yolo-dist run"):
        read_run(UPath(tmp_path))
