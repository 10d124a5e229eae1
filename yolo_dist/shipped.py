"""The YAML files that come with the package: cards and recipes."""

from pathlib import Path


def shipped_folder(name: str) -> Path:
    """`datasets` or `launch`: the checkout's folder, or its copy inside an installed package."""
    package = Path(__file__).resolve().parent
    checkout = package.parent / name
    return checkout if (package.parent / "pyproject.toml").is_file() else package / "shipped_files" / name
