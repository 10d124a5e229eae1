"""Every command of README and docs runs, in the order in which it stands there."""

import re
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from blood_cells import write_blood_cells
from typer.testing import CliRunner

from yolo_dist.cli.app import app
from yolo_dist.config import Config
from yolo_dist.recipe import ExportStage, PruneStage, QuantizeStage, Recipe, TrainStage

ROOT = Path(__file__).resolve().parents[1]
DOCUMENTS = sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md")])
FENCED = re.compile(r"^```sh\n(.*?)^```", re.MULTILINE | re.DOTALL)
SMALL = ["model={zoo: yolov3-tiny, width: 0.1}", "image_size=64", "cluster.workers=0"]
SHORT = {
    "demo": [*SMALL, "base.epochs=1", "sparse.epochs=1", "tuned.epochs=1"],
    "run": SMALL,
    "convert": ["--overwrite"],
    "tune": [*SMALL, "base.epochs=1", "sparse.epochs=1", "tuned.epochs=1", "pruned.method=slim", "stopping=null"],
    "train": ["cluster.workers=0", "train.epochs=1"],
}
"""What makes the documents' long commands short enough for a test, and repeatable."""


def commands(document: Path) -> list[list[str]]:
    """The command lines in a document's shell blocks."""
    lines = "\n".join(FENCED.findall(document.read_text())).replace("\\\n", " ").splitlines()
    return [shlex.split(line, comments=True) for line in lines if line.strip() and not line.startswith("#")]


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder as a reader of the documents has it: YAML files, data, and a run of `launch/bccd.yaml`."""
    folder = tmp_path_factory.mktemp("workshop")
    for name in ("launch", "tune_spaces"):
        shutil.copytree(ROOT / name, folder / name)
    write_blood_cells(folder / "BCCD_Dataset", images=12)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        run(["yolo-dist", "convert", "bccd", "BCCD_Dataset", "data/bccd"])
        run(["yolo-dist", "run", "launch/bccd.yaml"])
        yield folder


def run(command: list[str]) -> None:
    """Run a command of the documents, or check that the Makefile has it."""
    if command[0] == "make":
        makefile = (ROOT / "Makefile").read_text()
        for target in command[1:]:
            assert re.search(rf"^{target}:", makefile, re.MULTILINE), f"no target {target}"
        return
    assert command[0] == "yolo-dist", f"no test knows how to run {command[0]}"
    short = [*SHORT.get(command[1], []), *(one_epoch_each(command[2]) if command[1] == "run" else [])]
    result = CliRunner().invoke(app, [*command[1:], *short])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output


def one_epoch_each(recipe: str) -> list[str]:
    """Overrides that make the training stages of a recipe short."""
    stages = yaml.safe_load(Path(recipe).read_text())["stages"]
    return [f"{stage['id']}.epochs=1" for stage in stages if stage["kind"] == "train"]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_commands_of_the_documents_run(document: Path, workshop: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(workshop)
    for command in commands(document):
        run(command)


def test_the_readme_shows_commands() -> None:
    assert ["make", "demo"] in commands(ROOT / "README.md")
    assert ["make", "test"] in commands(ROOT / "README.md")


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_of_the_documents_lead_somewhere(document: Path) -> None:
    targets = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", document.read_text())
    assert [target for target in targets if not (document.parent / target).exists()] == []


def test_the_recipe_page_names_every_key() -> None:
    page = (ROOT / "docs" / "recipe.md").read_text()
    missing = [
        key
        for model in (Recipe, TrainStage, PruneStage, QuantizeStage, ExportStage)
        for key in keys_of(model)
        if f"`{key}" not in page
    ]
    assert missing == []


def keys_of(model: type[Config]) -> Iterator[str]:
    """Keys of a configuration class and of those it is composed of."""
    for name, field in model.model_fields.items():
        yield field.alias or name
        for part in (field.annotation, *getattr(field.annotation, "__args__", ())):
            if isinstance(part, type) and issubclass(part, Config) and part.__name__ != "ModelSource":
                yield from keys_of(part)


@pytest.mark.parametrize(
    "block", re.findall(r"```yaml\n(.*?)```", "".join(path.read_text() for path in DOCUMENTS), re.DOTALL)
)
def test_yaml_examples_are_yaml(block: str) -> None:
    assert yaml.safe_load(block)
