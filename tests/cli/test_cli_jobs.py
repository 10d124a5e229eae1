"""Jobs on a real Ray head with a job server that asks for a token."""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pytest
import tiny
import yaml
from command_line import Outcome, done, refused, yolo_dist
from free_ports import free_ports
from ray_head import RayHead, ray_head

from yolo_dist import errors

PLANTED = "planted-secret"


@pytest.fixture(scope="module")
def head(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RayHead]:
    """The head, started once; its nodes have the libraries, and this package only from working directories."""
    with ray_head(tmp_path_factory.mktemp("head")) as head:
        yield head


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working directory with this package and a recipe whose data and storage lie elsewhere."""
    folder = tmp_path_factory.mktemp("checkout")
    shared = tmp_path_factory.mktemp("shared")
    shutil.copytree(Path(errors.__file__).parent, folder / "yolo_dist")
    tiny.write_cfg(folder)
    tiny.write_shards(shared)
    values = tiny.recipe_values(shared, model="tiny.cfg", cluster={"workers": 1})
    values["stages"] = values["stages"][:1]
    (folder / "tiny.yaml").write_text(yaml.safe_dump(values))
    return folder


Call = Callable[..., Any]


@pytest.fixture(scope="module")
def call(head: RayHead, checkout: Path) -> Iterator[Call]:
    """Calls a function of `command_line` in a process that has the token, for Ray reads it once a process."""
    variables = head.environment() | {"AWS_SECRET_ACCESS_KEY": PLANTED, "RAY_ADDRESS": "127.0.0.1:1"}  # not the head's
    with ProcessPoolExecutor(1, get_context("spawn"), initializer=prepare, initargs=(checkout, variables)) as pool:
        yield lambda function, *words: pool.submit(function, *words).result()


def prepare(folder: Path, variables: dict[str, str]) -> None:
    os.chdir(folder)
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        del os.environ[name]  # of an object store that other tests use
    os.environ.update(variables)


@pytest.fixture
def submit(call: Call, head: RayHead) -> Callable[..., Outcome]:
    return lambda *words: call(yolo_dist, "submit", *words, "--address", head.jobs, "--no-requirements")


def test_a_recipe_trains_as_a_job_and_what_it_prints_comes_back(
    submit: Call, call: Call, head: RayHead, checkout: Path
) -> None:
    outcome = submit("tiny.yaml", "--follow", "--json")
    assert outcome.code == 0, outcome.out + outcome.err
    assert "base  epoch 1/1" in outcome.out
    storage = Path(yaml.safe_load((checkout / "tiny.yaml").read_text())["storage"])
    (result,) = json.loads((storage / "tiny" / "results.json").read_text())
    assert result["id"] == "base"
    assert "variables passed on: AWS_SECRET_ACCESS_KEY\n" in outcome.err
    left = [*storage.rglob("*")]
    assert not any(PLANTED.encode() in path.read_bytes() for path in left if path.is_file())
    assert PLANTED not in outcome.out + outcome.err
    assert PLANTED not in call(done, "jobs", "list", "--address", head.jobs, "--json").out


def test_waiting_gives_the_exit_code_of_the_job(submit: Call, call: Call, head: RayHead) -> None:
    outcome = submit("evaluate", "--model", "nowhere", "--shards", "nowhere", "--wait", "--id", "wrong-input")
    assert outcome.code == 2
    assert outcome.out == "wrong-input\n"
    assert outcome.err.splitlines()[-1].startswith("wrong-input: failed; ")
    assert "nowhere" in call(done, "jobs", "logs", "wrong-input", "--address", head.jobs).out
    (job,) = [
        job for job in call(done, "jobs", "list", "--address", head.jobs, "--json").json() if job["id"] == "wrong-input"
    ]
    assert (job["status"], job["exit_code"]) == ("FAILED", 2)
    assert job["command"] == "python -m yolo_dist evaluate --model nowhere --shards nowhere"
    assert "wrong-input" in call(done, "jobs", "list", "--address", head.jobs).out


def test_a_stopped_job_writes_a_checkpoint_from_which_the_same_submission_goes_on(
    submit: Call, call: Call, head: RayHead, checkout: Path
) -> None:
    words = ("name=stopped", "cluster.workers=0", "base.epochs=500", "base.checkpoint_every=500")
    job = submit("tiny.yaml", *words, "base.evaluate_every=0").out.strip()
    give_up = time.monotonic() + 90
    while "epoch 2/" not in call(done, "jobs", "logs", job, "--address", head.jobs).out:
        assert time.monotonic() < give_up
        time.sleep(0.5)
    assert call(done, "jobs", "stop", job, "--address", head.jobs).out == f"{job}: stopped\n"
    storage = Path(yaml.safe_load((checkout / "tiny.yaml").read_text())["storage"])
    assert len([*(storage / "stopped" / "checkpoints").rglob("checkpoint.json")]) == 1
    assert call(done, "jobs", "stop", job, "--address", head.jobs).out == f"{job}: had ended before\n"


def test_the_plain_line_has_the_id_and_options_that_contradict_are_refused(
    checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(checkout)
    words = ("tiny.yaml", "--address", "http://head:8265", "--no-requirements", "--check", "--no-pass-on")
    line = done("submit", *words, "--id", "my-run").out
    assert line.startswith("ray job submit --address http://head:8265 --submission-id my-run --working-dir . ")
    (error,) = refused("submit", *words, "--env", "NOT_SET")
    assert error == "--no-pass-on: passes nothing on, --env NOT_SET asks for it; leave one out"


def test_a_job_that_is_not_there_is_named(call: Call, head: RayHead) -> None:
    for command in ("logs", "stop"):
        (error,) = call(refused, "jobs", command, "nothing", "--address", head.jobs)
        assert error.startswith(f"nothing: no such job at {head.jobs}")


@pytest.mark.parametrize("token", ["wrong-" * 8, None])
def test_a_wrong_token_is_refused_in_one_line(token: str | None, head: RayHead) -> None:
    variables = {"RAY_AUTH_MODE": "disabled"} if token is None else head.environment(token)
    program = "import sys; from yolo_dist.cli import main; sys.argv[0] = 'yolo-dist'; main()"
    command = [sys.executable, "-c", program, "jobs", "list", "--address", head.jobs]
    ran = subprocess.run(command, capture_output=True, text=True, env=os.environ | variables)
    assert ran.returncode == 2
    assert ran.stderr == (
        f"error: {head.jobs}: refuses the token; set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN as on the cluster\n"
    )


def test_where_no_server_answers_the_error_says_what_to_do(call: Call) -> None:
    address = f"127.0.0.1:{free_ports(1)[0]}"
    (error,) = call(refused, "jobs", "list", "--address", address)
    assert error.startswith(f"http://{address}: no job server answers")


def test_check_sends_nothing(submit: Call, call: Call, head: RayHead) -> None:
    before = call(done, "jobs", "list", "--address", head.jobs, "--json").json()
    outcome = submit("tiny.yaml", "--check")
    assert outcome.out.startswith(f"ray job submit --address {head.jobs} --working-dir . --runtime-env-json ")
    assert call(done, "jobs", "list", "--address", head.jobs, "--json").json() == before
