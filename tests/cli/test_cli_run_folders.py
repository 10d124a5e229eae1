"""Commands about the runs of a storage, on a disk and in an object store."""

import json
import shutil
from pathlib import Path

import pytest
import tiny
import yaml
from command_line import done, refused, yolo_dist
from object_store_server import ObjectStore
from upath import UPath

from yolo_dist import lease, run_folders
from yolo_dist.lease import Holder, Lease
from yolo_dist.storage import location, publish, remove


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A storage with a run of which one stage of two is there, as if the second were being trained."""
    folder = tmp_path_factory.mktemp("finished")
    tiny.write_cfg(folder)
    tiny.write_shards(folder)
    values = tiny.recipe_values(folder)
    values["stages"] = values["stages"][:2]
    (folder / "tiny.yml").write_text(yaml.safe_dump(values))
    done("run", folder / "tiny.yml")
    run = folder / "runs" / "tiny"
    results = json.loads((run / "results.json").read_text())
    (run / "results.json").write_text(json.dumps(results[:1]))
    (run / "checkpoints" / "0123").mkdir(parents=True)
    (run / "checkpoints" / "0123" / "state.safetensors").write_bytes(b"0" * 2**20)
    (folder / "runs" / "no-run").mkdir()
    return folder / "runs"


@pytest.fixture(params=["disk", "object store"])
def storage(request: pytest.FixtureRequest, finished: Path, tmp_path: Path) -> str:
    """The same in a place of its own."""
    if request.param == "disk":
        shutil.copytree(finished, tmp_path / "runs")
        return str(tmp_path / "runs")
    store: ObjectStore = request.getfixturevalue("s3")
    url = f"{store.url}/{tmp_path.name}/runs"
    for file in finished.rglob("*"):
        if file.is_file():
            publish(location(url) / file.relative_to(finished).as_posix(), file.read_bytes())
    return url


def test_runs_are_listed_with_their_state(storage: str) -> None:
    (run,) = done("runs", "list", storage, "--json").json()
    assert (run["name"], run["stages"], run["done"], run["holder"]) == ("tiny", 2, ["base"], None)
    assert run["unfinished_bytes"] == 2**20
    assert run["bytes"] > 2**20
    out = done("runs", "list", storage).out
    assert "tiny" in out
    assert "1/2" in out


def test_a_run_shows_its_results_and_what_is_missing(storage: str) -> None:
    out = done("runs", "show", f"{storage}/tiny").out
    assert "4,160" in out
    assert "not there yet: pruned" in out
    found = done("runs", "show", f"{storage}/tiny", "--json").json()
    assert [result["id"] for result in found["results"]] == ["base"]


def test_who_writes_a_run_is_told(storage: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "SECONDS_BETWEEN_SIGNS", 0.02)
    folder, holder = location(storage) / "tiny", Holder(host="other-machine", user="ann", process=7, since="now")
    publish(folder / "lease-1.json", holder.model_dump_json())
    theirs = Lease(folder, 1, holder)
    assert "ann on other-machine" in done("runs", "show", f"{storage}/tiny").out
    outcome = yolo_dist("runs", "clean", f"{storage}/tiny")
    assert outcome.code == 2
    assert "looking up to 45 s whether it lives" in outcome.out
    assert "is being written by ann on other-machine, process 7, since now" in outcome.err
    theirs.release()
    done("runs", "clean", f"{storage}/tiny")


def test_a_run_is_pulled_without_what_is_unfinished(storage: str, finished: Path, tmp_path: Path) -> None:
    done("runs", "pull", f"{storage}/tiny", "--out", tmp_path / "here")
    done("runs", "pull", f"{storage}/tiny", "--out", tmp_path / "here")
    copy = tmp_path / "here" / "tiny"
    expected = {path.relative_to(finished / "tiny"): path.read_bytes() for path in files(finished / "tiny")}
    assert {path.relative_to(copy): path.read_bytes() for path in files(copy)} == {
        name: content for name, content in expected.items() if name.parts[0] not in ("checkpoints", "lease-1.json")
    }


@pytest.mark.parametrize("name", ["stages/../../../evil", "/evil", "stages//evil"])
def test_no_name_in_a_storage_leads_out_of_the_folder_it_is_pulled_to(
    name: str, finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_folders, "_sizes", lambda _: iter([(name, 1)]))
    (error,) = refused("runs", "pull", finished / "tiny", "--out", tmp_path / "here")
    assert "would land outside" in error
    assert [*tmp_path.rglob("*")] == []


def test_a_run_is_not_replaced_by_its_own_copy(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(finished, tmp_path / "runs")
    monkeypatch.chdir(tmp_path)
    assert refused("runs", "pull", "runs/tiny") == [
        f"{tmp_path}/runs/tiny: is the run itself, not a copy; give another --out"
    ]
    assert (tmp_path / "runs" / "tiny" / "checkpoints").is_dir()


@pytest.mark.parametrize(("name", "content"), [("recipe.yaml", "no_such_key: 1"), ("results.json", "{")])
def test_a_run_that_cannot_be_read_is_listed_beside_others_and_can_be_deleted(
    finished: Path, tmp_path: Path, name: str, content: str
) -> None:
    for run in ("a-whole-one", "old"):
        shutil.copytree(finished / "tiny", tmp_path / run)
    (tmp_path / "old" / name).write_text(content)
    assert [(run["name"], run["stages"]) for run in done("runs", "list", tmp_path, "--json").json()] == [
        ("a-whole-one", 2),
        ("old", 0),
    ]
    assert f"old cannot be read: {tmp_path}/old/{name}: " in done("runs", "list", tmp_path).out
    done("runs", "clean", tmp_path / "old", "--whole")
    assert [path.name for path in tmp_path.iterdir()] == ["a-whole-one"]


def test_a_run_is_held_while_it_is_deleted(storage: str, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, held = location(storage) / "tiny", []

    def deleted(path: UPath) -> None:
        held.append(lease.read_holder(folder) is not None)
        remove(path)

    monkeypatch.setattr(lease, "remove", deleted)
    done("runs", "clean", folder, "--whole")
    assert held
    assert all(held)
    assert done("runs", "list", storage, "--json").json() == []


def files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def test_cleaning_takes_checkpoints_and_leaves_stages(storage: str) -> None:
    assert done("runs", "clean", f"{storage}/tiny", "--check").out == f"{storage}/tiny: 1.0 MiB would be freed\n"
    assert done("runs", "clean", f"{storage}/tiny").out == f"{storage}/tiny: 1.0 MiB freed\n"
    (run,) = done("runs", "list", storage, "--json").json()
    assert (run["done"], run["unfinished_bytes"]) == (["base"], 0)
    done("runs", "clean", f"{storage}/tiny", "--whole")
    assert done("runs", "list", storage, "--json").json() == []


def test_a_folder_that_is_no_run_is_refused(storage: str, tmp_path: Path) -> None:
    for words in (["show"], ["pull", "--out", str(tmp_path / "x")], ["clean"], ["clean", "--whole"]):
        (error,) = refused("runs", words[0], f"{storage}/no-run", *words[1:])
        assert error.startswith(f"{storage}/no-run: is no run")


def test_a_second_run_of_the_name_is_refused_while_the_first_writes(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(finished, tmp_path / "runs")
    with lease.hold(location(tmp_path / "runs" / "tiny"), print):
        (error,) = refused("run", finished.parent / "tiny.yml", f"storage={tmp_path}/runs")
    assert error.startswith(f"{tmp_path}/runs/tiny: is being written by ")
