"""The ladder of docs/design.md: every module has a rung, and imports nothing from above it."""

import ast
import re
from pathlib import Path

import yolo_dist

PACKAGE = Path(yolo_dist.__file__).parent
DESIGN = Path(__file__).parents[1] / "docs" / "design.md"
MODULES = [
    ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__")
    for path in sorted(PACKAGE.rglob("*.py"))
    if path.parent != PACKAGE or not path.stem.startswith("__")
]


def rungs() -> dict[str, int]:
    """Rung of each module or folder on the ladder, 0 at its top."""
    block = DESIGN.read_text().partition("nothing imports a rung above its own:\n\n")[2].partition("\n\n")[0]
    return {
        name.replace("/", "."): number
        for number, line in enumerate(block.splitlines())
        for name in re.split(r",\s*|\s{2,}", line.strip())
    }


def rung_of(module: str, ladder: dict[str, int]) -> int | None:
    """That of the module itself, or of the folder that it is in."""
    parts = module.split(".")
    names = [".".join(parts[:length]) for length in range(len(parts), 0, -1)]
    return next((ladder[name] for name in names if name in ladder), None)


def imported_by(module: str) -> set[str]:
    """What a module imports of this package, inside of functions too."""
    path = PACKAGE.joinpath(*module.split("."))
    source = (path / "__init__.py" if path.is_dir() else path.with_suffix(".py")).read_text()
    found = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.ImportFrom)]
    named = {f"{node.module}.{alias.name}" for node in found for alias in node.names}
    return {name.removeprefix("yolo_dist.") for name in named if name.startswith("yolo_dist.")}


def test_every_module_has_a_rung() -> None:
    ladder = rungs()
    folders = {name.rpartition(".")[0] for name in ladder}  # one whose parts have rungs has none itself
    assert [module for module in MODULES if rung_of(module, ladder) is None and module not in folders] == []


def test_nothing_imports_a_rung_above_its_own() -> None:
    ladder = rungs()
    upwards = [
        f"{module} → {other}"
        for module in MODULES
        for other in sorted(imported_by(module))
        if (above := rung_of(other, ladder)) is not None and above < (rung_of(module, ladder) or 0)
    ]
    assert upwards == []
