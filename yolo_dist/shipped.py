"""The YAML files that come with the package: cards and recipes; in a checkout spaces too."""

from pathlib import Path


def shipped_folder(name: str) -> Path:
    """`datasets`, `launch` or `tune_spaces`: the checkout's folder, or its copy inside an installed package."""
    package = Path(__file__).resolve().parent
    checkout = package.parent / name
    return checkout if (package.parent / "pyproject.toml").is_file() else package / "shipped_files" / name
