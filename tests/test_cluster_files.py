"""The files of `cluster/`: valid by their readers' own schemas, private by default, and what they run exists."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import ray
import typer
import yaml
from ray.autoscaler._private.util import fillout_defaults, merge_setup_commands

from yolo_dist.cli.app import app
from yolo_dist.recipe import read_recipe
from yolo_dist.tune.space import read_space

ROOT = Path(__file__).resolve().parents[1]
CLUSTER = ROOT / "cluster"
SCHEMAS = ROOT.parent / "shared" / "schemas"
KUBERNETES = "1.37"
PAGES = sorted((ROOT / "docs" / "cluster").glob("*.md"))
COMPOSE = {"RAY_AUTH_TOKEN": "t" * 32, "AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret"}


def manifests() -> list[Any]:
    return [
        pytest.param(document, id=f"{path.stem}, {document['kind']}")
        for path in sorted((CLUSTER / "kuberay").glob("*.yaml"))
        for document in yaml.safe_load_all(path.read_text())
    ]


RAY_KINDS = [one for one in manifests() if one.values[0]["apiVersion"] == "ray.io/v1"]
OTHER_KINDS = [one for one in manifests() if one.values[0]["apiVersion"] != "ray.io/v1"]


def strict(schema: Any) -> Any:
    """The schema, which then refuses keys that it does not name, as `kubectl apply` does."""
    if isinstance(schema, list):
        return [strict(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    inner = {key: strict(value) for key, value in schema.items()}
    open_ended = inner.get("x-kubernetes-preserve-unknown-fields") or "additionalProperties" in inner
    if isinstance(schema.get("properties"), dict) and schema.get("type") == "object" and not open_ended:
        inner["additionalProperties"] = False
    return inner


def ray_schema(kind: str) -> Any:
    path = SCHEMAS / f"ray.io_v1_{kind.lower()}.schema.json"
    if not path.is_file():
        pytest.skip(f"schemas of KubeRay's kinds are not at {SCHEMAS}")
    schema = json.loads(path.read_text())
    schema["properties"] |= {name: {} for name in ("apiVersion", "kind", "metadata")}
    return strict(schema)


def program(name: str) -> str:
    """A linter beside the interpreter or on the path."""
    found = shutil.which(name, path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    if found is None:
        pytest.skip(f"{name} is not installed")
    return found


def pod_specs(value: Any) -> Iterator[dict[str, Any]]:
    """Everything in a manifest that has containers."""
    if isinstance(value, dict):
        if "containers" in value:
            yield value
        for part in value.values():
            yield from pod_specs(part)
    elif isinstance(value, list):
        for part in value:
            yield from pod_specs(part)


@pytest.mark.parametrize("manifest", RAY_KINDS)
def test_kuberay_would_take_its_manifests(manifest: dict[str, Any]) -> None:
    schema = ray_schema(manifest["kind"])
    jsonschema.validate(manifest, schema)
    with pytest.raises(jsonschema.ValidationError, match="wokerGroupSpecs"):
        jsonschema.validate({**manifest, "spec": {**manifest["spec"], "wokerGroupSpecs": []}}, schema)


@pytest.mark.parametrize("manifest", OTHER_KINDS)
def test_kubernetes_would_take_the_other_manifests(manifest: dict[str, Any]) -> None:
    validator = pytest.importorskip("kubernetes_validate", reason="kubernetes-validate is not installed")
    validator.validate(manifest, KUBERNETES, strict=True)
    with pytest.raises(validator.ValidationError):
        validator.validate({**manifest, "spec": {**manifest["spec"], "templet": {}}}, KUBERNETES, strict=True)


@pytest.mark.parametrize("manifest", RAY_KINDS)
def test_kuberay_clusters_ask_for_a_token_and_grow_for_spot_gpus(manifest: dict[str, Any]) -> None:
    spec = manifest["spec"].get("rayClusterSpec", manifest["spec"])
    assert spec["authOptions"] == {"mode": "token"}
    assert spec["rayVersion"] == pinned("ray")
    assert spec["enableInTreeAutoscaling"] is True
    groups = {group["groupName"]: group for group in spec["workerGroupSpecs"]}
    assert list(groups) == ["cpu", "gpu-spot"]
    assert groups["gpu-spot"]["minReplicas"] == 0
    (container,) = groups["gpu-spot"]["template"]["spec"]["containers"]
    assert container["resources"]["limits"]["nvidia.com/gpu"] == "1"
    assert any("spot" in toleration["key"] for toleration in groups["gpu-spot"]["template"]["spec"]["tolerations"])


def pinned(package: str) -> str:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    return next(line.partition("==")[2] for line in lines if line.startswith(f"{package}=="))


@pytest.mark.parametrize("manifest", [one for one in manifests() if one.values[0]["kind"] != "NetworkPolicy"])
def test_pods_run_as_nobody_special_with_keys_from_a_secret_alone(manifest: dict[str, Any]) -> None:
    specs = list(pod_specs(manifest))
    assert specs
    for container in (container for spec in specs for container in spec["containers"]):
        assert container["securityContext"]["runAsNonRoot"] is True
        assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
        assert container["envFrom"] == [{"secretRef": {"name": "yolo-dist-storage"}}]
        assert not re.search(r":latest$", container["image"])
        assert {"cpu", "memory"} <= set(container["resources"]["requests"])


@pytest.mark.parametrize("manifest", RAY_KINDS)
def test_workers_have_no_key_to_kubernetes_itself(manifest: dict[str, Any]) -> None:
    """The head needs one: it asks for more workers."""
    spec = manifest["spec"].get("rayClusterSpec", manifest["spec"])
    groups = [group["template"]["spec"] for group in spec["workerGroupSpecs"]]
    assert [pod["automountServiceAccountToken"] for pod in groups] == [False, False]


def test_only_the_cluster_itself_and_the_operator_reach_rays_ports() -> None:
    (policy,) = (one.values[0] for one in OTHER_KINDS if one.values[0]["kind"] == "NetworkPolicy")
    ours = {"matchLabels": {"ray.io/cluster": "yolo-dist"}}
    assert policy["spec"]["podSelector"] == ours
    everything, jobs = policy["spec"]["ingress"]
    assert everything == {"from": [{"podSelector": ours}]}
    assert jobs["ports"] == [{"port": 8265}]


def compose() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((CLUSTER / "compose.yaml").read_text())
    return loaded


def test_the_compose_file_follows_the_compose_specification() -> None:
    pytest.importorskip("check_jsonschema", reason="check-jsonschema is not installed")
    import check_jsonschema

    path = Path(check_jsonschema.__file__).parent / "builtin_schemas" / "vendor" / "compose-spec.json"
    jsonschema.validate(compose(), json.loads(path.read_text()))


def test_compose_lets_nobody_in_but_this_machine_with_a_token() -> None:
    services = compose()["services"]
    published = [port for service in services.values() for port in service.get("ports", [])]
    assert published == ["127.0.0.1:${JOBS_PORT:-8265}:8265"]
    for name in ("head", "worker", "convert"):
        assert services[name]["environment"]["RAY_AUTH_MODE"] == "token"
        assert services[name]["environment"]["RAY_AUTH_TOKEN"].startswith("${RAY_AUTH_TOKEN:?")


def test_compose_starts_the_store_with_the_head() -> None:
    services = compose()["services"]
    assert services["head"]["depends_on"] == ["store"]
    assert services["worker"]["depends_on"] == {"head": {"condition": "service_healthy"}}


def test_compose_fills_in_what_the_environment_says_and_nothing_is_a_secret_of_the_file() -> None:
    text = (CLUSTER / "compose.yaml").read_text()
    names = set(re.findall(r"\$\{([A-Z_]+)", text))
    assert names == {*COMPOSE, "IMAGE", "JOBS_PORT", "WORKERS", "CPUS_PER_WORKER", "MEMORY_PER_WORKER", "SOURCE"}
    content = compose()["configs"]["s3"]["content"]
    for name, value in COMPOSE.items():
        content = content.replace(f"${{{name}}}", value)
    assert json.loads(content)["identities"][0]["credentials"] == [{"accessKey": "key", "secretKey": "secret"}]


@pytest.mark.parametrize("name", ["aws", "gcp"])
def test_the_cluster_launcher_would_take_its_files(name: str) -> None:
    config = yaml.safe_load((CLUSTER / f"{name}.yaml").read_text())
    schema = json.loads((Path(ray.__file__).parent / "autoscaler" / "ray-schema.json").read_text())
    jsonschema.validate(config, schema)
    types = config["available_node_types"]
    assert config["head_node_type"] in types
    assert all("min_workers" in one and "max_workers" in one for key, one in types.items() if key != "head")


@pytest.mark.parametrize("name", ["aws", "gcp"])
def test_the_cluster_launcher_installs_nothing_in_an_image_whose_packages_belong_to_root(name: str) -> None:
    config = yaml.safe_load((CLUSTER / f"{name}.yaml").read_text())
    merged = merge_setup_commands(fillout_defaults(config))
    kinds = ("initialization_commands", "setup_commands", "head_setup_commands", "worker_setup_commands")
    assert {kind: merged[kind] for kind in kinds} == {kind: [] for kind in kinds}


@pytest.mark.parametrize("name", ["aws", "gcp"])
def test_launched_clusters_ask_for_a_token_and_listen_inside(name: str) -> None:
    config = yaml.safe_load((CLUSTER / f"{name}.yaml").read_text())
    starts = [*config["head_start_ray_commands"], *config["worker_start_ray_commands"]]
    for start in (line for line in starts if "ray start" in line):
        assert "RAY_AUTH_MODE=token RAY_AUTH_TOKEN_PATH=/home/yolo/.ray/auth_token" in start
    assert "--dashboard-host=127.0.0.1" in config["head_start_ray_commands"][-1]


def test_the_dockerfile_passes_its_linter() -> None:
    ran = subprocess.run([program("hadolint"), str(ROOT / "Dockerfile")], capture_output=True, text=True)
    assert ran.returncode == 0, ran.stdout
    assert ran.stdout == ""


def test_the_image_has_the_ray_that_the_manifests_name() -> None:
    assert f"yolo-dist:{package_version()}" in (CLUSTER / "kuberay" / "cluster.yaml").read_text()


@pytest.mark.parametrize(("cloud", "package"), [("aws", "boto3"), ("gcp", "google-api-python-client")])
def test_the_image_has_what_the_cluster_launcher_calls_in_it(cloud: str, package: str) -> None:
    image = (ROOT / "Dockerfile").read_text()
    for called in ("openssh-client", "rsync"):
        assert re.search(rf"apt-get install .* {called} ", image)
    assert "/etc/profile.d/" in image, "login shells set PATH anew"
    page = (ROOT / "docs" / "cluster" / f"{cloud}.md").read_text()
    assert f"--build-arg PACKAGES={package} " in page
    assert pinned(package)


def package_version() -> str:
    match = re.search(r'^version = "(.*)"', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    assert match is not None
    return match[1]


FAKES = {
    "scontrol": 'if [ "$1" = show ]; then printf "node-1\\nnode-2\\n"; else echo "scontrol $*" >> "$LOG"; fi',
    "srun": 'echo "srun $*" >> "$LOG"',
    "ray": 'echo "ray $*" >> "$LOG"',
    "yolo-dist": 'echo "yolo-dist $* at $RAY_ADDRESS, $RAY_AUTH_MODE ${#RAY_AUTH_TOKEN}" >> "$LOG"\n'
    'if [ -n "$STOP" ]; then trap "exit 143" TERM; kill -TERM "$PPID"; while :; do read -rt 1 <> <(:) || :; done; fi',
}


@pytest.mark.parametrize("stopped", [False, True], ids=["done", "out of time"])
@pytest.mark.timeout(60)
def test_the_slurm_script_starts_nodes_runs_and_queues_up_again(stopped: bool, tmp_path: Path) -> None:
    for name, body in FAKES.items():
        (tmp_path / name).write_text(f"#!/bin/bash\n{body}\n")
        (tmp_path / name).chmod(0o755)
    slurm = {"SLURM_JOB_NODELIST": "node-[1-2]", "SLURM_JOB_NUM_NODES": "2", "SLURM_JOB_ID": "7"}
    environment = {"PATH": f"{tmp_path}:/usr/bin:/bin", "LOG": str(tmp_path / "log"), "STOP": "x" if stopped else ""}
    command = ["bash", str(CLUSTER / "slurm" / "train.sbatch"), "launch/bccd.yaml", "storage=/shared/my runs"]
    ran = subprocess.run(command, env=slurm | environment, capture_output=True, text=True)
    assert ran.returncode == (143 if stopped else 0), ran.stderr
    log = (tmp_path / "log").read_text().splitlines()
    heads = [line for line in log if "ray start --head" in line]
    assert len(heads) == 1
    assert "--nodelist=node-1" in heads[0]
    (others,) = (line for line in log if "ray start --block --address=node-1:6379" in line)
    assert "--nodes=1 --ntasks=1 --exclude=node-1" in others
    assert "yolo-dist run launch/bccd.yaml storage=/shared/my runs at node-1:6379, token 64" in log
    assert ("scontrol requeue 7" in log) == stopped


COMMAND = re.compile(r"(?:^|exec head )(?:\.venv/bin/)?yolo-dist (.*)")


def commands(text: str) -> Iterator[list[str]]:
    """The words after each `yolo-dist` that begins a line of a text's shell blocks, or runs in a container."""
    for block in re.findall(r"^```bash\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
        for line in block.replace("\\\n", " ").splitlines():
            if match := COMMAND.search(line):
                yield shlex.split(match[1], comments=True)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_commands_of_the_pages_have_the_options_they_use(page: Path) -> None:
    for words in commands(page.read_text()):
        require_known(words)


def require_known(words: list[str]) -> None:
    command: Any = typer.main.get_command(app)
    while hasattr(command, "commands"):
        assert words[0] in command.commands, words
        command, words = command.commands[words[0]], words[1:]
    command.make_context("yolo-dist", list(words))


def test_the_manifests_run_commands_with_options_and_overrides_that_there_are() -> None:
    entrypoints = {one.values[0]["metadata"]["name"]: one.values[0]["spec"].get("entrypoint") for one in manifests()}
    program, command, _, *overrides = shlex.split(entrypoints["yolo-dist-train"])
    assert (program, command) == ("yolo-dist", "run")
    recipe = read_recipe(str(ROOT / "launch" / "bccd.yaml"), overrides)
    assert recipe.storage == "s3://BUCKET/runs"
    assert (recipe.cluster.workers, recipe.cluster.cpus_per_worker) == ((1, 8), 4)
    program, command, _, *overrides = shlex.split(entrypoints["yolo-dist-tune"])
    assert (program, command) == ("yolo-dist", "tune")
    assert "--resume" in overrides, "the operator's second attempt finds what the first began"
    overrides.remove("--resume")
    for path in sorted((ROOT / "tune_spaces").glob("*.yaml")):
        space = read_space(str(path), overrides)
        assert (space.recipe, space.storage) == ("/recipe/recipe.yaml", "s3://BUCKET/runs")
        assert space.overrides[-1] == "shards=s3://BUCKET/shards/bccd"
    (conversion,) = (one.values[0] for one in OTHER_KINDS if one.values[0]["kind"] == "Job")
    for container in conversion["spec"]["template"]["spec"]["containers"]:
        require_known(container["command"][1:])


@pytest.mark.parametrize("name", ["compose", "kuberay", "aws", "gcp", "slurm", "machines"])
def test_every_place_has_a_page_with_costs_and_pitfalls(name: str) -> None:
    page = (ROOT / "docs" / "cluster" / f"{name}.md").read_text()
    headings = re.findall(r"^## (.*)", page, re.MULTILINE)
    assert headings[-2:] == ["Costs", "Pitfalls"]
