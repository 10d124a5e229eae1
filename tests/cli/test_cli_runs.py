"""Commands about whole runs: one line an error, results as a table or as JSON, nothing done twice."""

import json
import shutil
from pathlib import Path

import pytest
import tiny
import yaml
from command_line import done, refused, yolo_dist


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A recipe, what it needs, and its run."""
    folder = tmp_path_factory.mktemp("finished")
    tiny.write_cfg(folder)
    tiny.write_shards(folder)
    write_recipe(folder)
    done("run", folder / "tiny.yml")
    return folder


@pytest.fixture
def folder(finished: Path, tmp_path: Path) -> Path:
    """The same, in a place of its own."""
    shutil.copytree(finished, tmp_path, dirs_exist_ok=True)
    write_recipe(tmp_path)
    return tmp_path


def write_recipe(folder: Path) -> None:
    (folder / "tiny.yml").write_text(yaml.safe_dump(tiny.recipe_values(folder)))


def test_run_prints_a_table_of_stages_and_where_the_report_is(folder: Path) -> None:
    shutil.rmtree(folder / "runs")
    out = done("run", folder / "tiny.yml").out
    rows = [line for line in out.splitlines() if line.startswith("│")]
    assert [row.split("│")[1].strip() for row in rows] == ["base", "pruned", "tuned"]
    assert "4,160" in rows[0]
    assert out.endswith(f"report: {folder}/runs/tiny/report.html\n")
    assert (folder / "runs" / "tiny" / "report.html").is_file()


def test_a_second_run_says_that_there_is_nothing_to_do(folder: Path) -> None:
    outcome = done("run", folder / "tiny.yml")
    assert "tiny: nothing to do, all 3 stages are there" in outcome.out + outcome.err
    assert outcome.out.count("cached") >= 3


def test_run_as_json_prints_the_results_and_nothing_else(folder: Path) -> None:
    outcome = done("run", folder / "tiny.yml", "tuned.epochs=2", "--json")
    rows = outcome.json()
    assert rows == json.loads((folder / "runs" / "tiny" / "results.json").read_text())
    assert [(row["id"], row["cached"]) for row in rows] == [("base", True), ("pruned", True), ("tuned", False)]
    assert "tuned  epoch 2/2" in outcome.err
    assert outcome.err.endswith("report.html\n")


def test_check_validates_and_starts_nothing(folder: Path) -> None:
    shutil.rmtree(folder / "runs")
    assert done("run", folder / "tiny.yml", "--check").out == (
        f"{folder}/tiny.yml: 3 stages on 12 training and 6 validation images: nothing wrong\n"
    )
    assert not (folder / "runs").exists()


def test_check_as_json_prints_numbers_and_nothing_else(folder: Path) -> None:
    assert done("run", folder / "tiny.yml", "--check", "--json").json() == {
        "stages": 3,
        "training_images": 12,
        "validation_images": 6,
    }


@pytest.mark.parametrize("options", [[], ["--check"]])
def test_workers_without_room_and_a_storage_that_is_a_file_are_told_with_all_else(
    folder: Path, options: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    shutil.rmtree(folder / "runs")
    wrong = [f"shards={folder}/nowhere", f"storage={folder}/tiny.cfg", "cluster.workers=2", "cluster.gpus_per_worker=9"]
    data, storage, workers = refused("run", folder / "tiny.yml", *wrong, *options)
    assert data.endswith("nowhere: holds no converted split; run yolo-dist convert")
    assert "tiny.cfg: is a file, where a folder shall go; " in storage
    assert "cluster.workers: 2 workers of 1 CPUs and 9 GPUs do not fit on 1 nodes of " in workers
    assert not (folder / "runs").exists()


@pytest.mark.parametrize("workers", ["0", "[1, 4096]"])
def test_check_takes_no_workers_and_as_many_as_there_is_room_for(
    folder: Path, workers: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    assert done("run", folder / "tiny.yml", "--check", f"cluster.workers={workers}").out.endswith("nothing wrong\n")


@pytest.mark.parametrize("options", [[], ["--check"]])
def test_wrong_keys_and_values_are_reported_together(folder: Path, options: list[str]) -> None:
    shutil.rmtree(folder / "runs")
    errors = refused("run", folder / "tiny.yml", "base.epochs=0", "tuned.epoch=3", "colour=red", "nonsense", *options)
    assert errors == [
        f"{folder}/tiny.yml: nonsense: an override reads key=value or stage.key=value",
        f"{folder}/tiny.yml: stages.0.epochs: Input should be greater than or equal to 1 (got 0)",
        f"{folder}/tiny.yml: stages.2.epoch: unknown key",
        f"{folder}/tiny.yml: colour: unknown key",
    ]
    assert not (folder / "runs").exists()


@pytest.mark.parametrize("options", [[], ["--check"]])
def test_everything_that_a_recipe_refers_to_is_checked_together(folder: Path, options: list[str]) -> None:
    shutil.rmtree(folder / "runs")
    wrong = [f"shards={folder}/nowhere", f"model={folder}/nothing.cfg"]
    errors = refused("run", folder / "tiny.yml", *wrong, *options)
    assert len(errors) == 2
    assert errors[0] == f"{folder}/tiny.yml: {folder}/nowhere: holds no converted split; run yolo-dist convert"
    assert errors[1].startswith(f"{folder}/tiny.yml: {folder}/nothing.cfg: cannot be read")
    assert not (folder / "runs").exists()


def test_a_malformed_cfg_is_named_with_its_line_before_anything_starts(folder: Path) -> None:
    shutil.rmtree(folder / "runs")
    (folder / "tiny.cfg").write_text(tiny.CFG.replace("stride=2", "strid=2", 1))
    line = tiny.CFG[: tiny.CFG.index("stride=2")].count("\n") + 1
    (error,) = refused("run", folder / "tiny.yml", "--check")
    where = f"{folder}/tiny.yml: {folder}/tiny.cfg:{line}"
    assert error == f"{where}: [convolutional] strid: unknown key; did you mean stride?"
    assert not (folder / "runs").exists()


def test_a_recipe_that_is_not_there_is_refused(tmp_path: Path) -> None:
    (error,) = refused("run", tmp_path / "nothing.yaml")
    assert error.startswith(f"{tmp_path}/nothing.yaml: cannot be read: No such file or directory; check the path; ")
    assert "launch: bccd-distillation.yaml, " in error


@pytest.mark.parametrize("options", [[], ["--check"]])
def test_a_search_space_is_told_to_be_one_in_one_line(folder: Path, options: list[str]) -> None:
    space = folder / "space.yaml"
    space.write_text(yaml.safe_dump({"recipe": "tiny.yml", "space": {"pruned.percent": {"grid": [0.3]}}}))
    assert refused("run", space, *options) == [
        f"{space}: is a search space, not a recipe; `yolo-dist tune {space}` searches it"
    ]


def test_pruning_what_is_not_sparse_needs_force_and_leaves_the_stages_before(folder: Path) -> None:
    outcome = yolo_dist("run", folder / "tiny.yml", "pruned.force=false")
    assert outcome.code == 2
    assert "--force" in outcome.errors[0]
    assert "percent 0.5 would cut" in outcome.errors[0]
    assert done("run", folder / "tiny.yml", "--json").json()[0]["cached"] is True


def test_report_is_built_again_from_the_runs_files(folder: Path) -> None:
    page = folder / "runs" / "tiny" / "report.html"
    page.unlink()
    assert done("report", folder / "runs" / "tiny").out == f"report: {page}\n"
    assert "<html" in page.read_text()


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        ("results.json", None, "no such file"),
        ("results.json", "[{", "Invalid JSON"),
        ("metrics.jsonl", "x\ny\n", "line 1"),
    ],
)
def test_report_names_the_file_that_is_missing_or_broken(
    folder: Path, name: str, content: str | None, problem: str
) -> None:
    path = folder / "runs" / "tiny" / name
    path.unlink() if content is None else path.write_text(content)
    (error,) = refused("report", folder / "runs" / "tiny")
    assert error.startswith(str(path))
    assert problem in error


def test_the_demo_ends_with_a_table_and_a_report(tmp_path: Path) -> None:
    small = [f"dataset={tiny.write_card(tmp_path)}", "model={zoo: yolov3-tiny, width: 0.1}", "image_size=64"]
    short = [*(f"{stage}.epochs=1" for stage in ("base", "sparse", "tuned", "int8")), "cluster.workers=0"]
    words = ["demo", "--out", tmp_path / "runs", "--data", tmp_path / "data", *small, *short]
    outcome = done(*words, "--json")
    assert [row["id"] for row in outcome.json()] == ["base", "sparse", "pruned", "tuned", "int8", "onnx"]
    again = done(*words).out
    assert "shapes: nothing to do, all 6 stages are there" in again
    assert again.endswith(f"report: {tmp_path}/runs/shapes/report.html\n")


def test_doctor_looks_at_a_storage_from_this_machine(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for place, word, ok in (("new", "this machine writes and reads", True), ("file", "NotADirectoryError", False)):
        findings = done("doctor", "--storage", tmp_path / place, "--json").json()
        (storage,) = [finding for finding in findings if finding["what"] == "storage"]
        assert (str(tmp_path / place) in storage["found"], word in storage["found"], storage["ok"]) == (True, True, ok)


def test_doctor_says_what_this_machine_can_do() -> None:
    out = done("doctor").out
    assert all(word in out for word in ("torch", "cores", "GiB", "GPU", "Ray"))
    assert [set(finding) for finding in done("doctor", "--json").json()] == [{"what", "found", "ok", "remedy"}] * 9
