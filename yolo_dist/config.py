"""What every configuration class shares: its file, strict keys, all mistakes at once, image sizes."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, TypeVar

import yaml
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, ValidationError

from yolo_dist.errors import ConfigError
from yolo_dist.shipped import shipped_folder

ConfigT = TypeVar("ConfigT", bound=BaseModel)

STRIDE_LIMIT = 32
SHOWN_CHARACTERS = 60


class Config(BaseModel):
    """Base of every configuration class: immutable, unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    def part(self, kind: type[ConfigT]) -> ConfigT:
        """What this configuration says about the keys of another class, all of which it has."""
        return kind(**{name: getattr(self, name) for name in kind.model_fields})


def _pair(value: Any) -> Any:
    return (value, value) if isinstance(value, int | str) else value


def _whole_cells(size: tuple[int, int]) -> tuple[int, int]:
    if any(side <= 0 or side % STRIDE_LIMIT for side in size):
        raise ValueError(f"width and height must be positive multiples of {STRIDE_LIMIT}, not {size[0]}×{size[1]}")
    return size


ImageSize = Annotated[tuple[int, int], BeforeValidator(_pair), AfterValidator(_whole_cells)]
"""(width, height) of the network's input in pixels; one number means a square."""


class _Loader(yaml.SafeLoader):
    """YAML's own rule, which its library leaves out: a mapping has each key once. And the place of every mistake."""

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        seen = set[str]()
        for key in (key for key, _ in node.value if isinstance(key, yaml.ScalarNode)):
            if key.value in seen:
                raise yaml.MarkedYAMLError(problem=f"key {key.value} occurs twice", problem_mark=key.start_mark)
            seen.add(key.value)
        return node

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        try:
            return super().construct_object(node, deep)
        except (AttributeError, LookupError, TypeError, ValueError) as error:  # as the library's conversions fail
            kind = node.tag.rpartition(":")[2]
            raise yaml.MarkedYAMLError(problem=f"is no {kind}: {error}", problem_mark=node.start_mark) from None


def read_yaml(path: str | Path, shipped: str | None = None) -> dict[str, Any]:
    """The mapping in a YAML file.

    Args:
        path: of the file.
        shipped: folder of those of its kind that come with the package, for the message where there is none.

    Raises:
        ConfigError: no such file, no YAML, a key that occurs twice, or no mapping.
    """
    try:
        values = yaml.load(Path(path).read_text(encoding="utf-8"), _Loader)
    except FileNotFoundError as error:
        raise ConfigError(str(path), [f"cannot be read: {error.strerror}; {_where_to_look(path, shipped)}"]) from None
    except OSError as error:
        raise ConfigError(str(path), [f"cannot be read: {error.strerror}"]) from None
    except UnicodeDecodeError:
        raise ConfigError(str(path), ["is not UTF-8 text"]) from None
    except yaml.YAMLError as error:
        raise ConfigError(str(path), [" ".join(str(error).split())]) from None
    if not isinstance(values, dict):
        raise ConfigError(str(path), ["must be a mapping of keys to values"])
    return values


def _where_to_look(path: str | Path, shipped: str | None) -> str:
    """What to do about a file that is not there."""
    start = "check the path" if Path(path).is_absolute() else f"a relative path begins at {Path.cwd()}"
    folder = None if shipped is None else shipped_folder(shipped)
    if folder is None or not folder.is_dir():
        return start
    names = sorted(file.name for file in folder.glob("*.yaml"))
    return f"{start}; those that come along lie in {folder}: {', '.join(names)}"


def validate(cls: type[ConfigT], values: Mapping[str, Any], source: str) -> ConfigT:
    """`values` as a `cls`.

    Raises:
        ConfigError: lists every wrong key and value with its dotted path.
    """
    try:
        return cls.model_validate(values)
    except ValidationError as error:
        raise ConfigError(source, problems_of(error)) from None


def problems_of(error: ValidationError) -> list[str]:
    """What pydantic found wrong, each with its dotted path."""
    return [_problem(item) for item in error.errors()]


def _problem(item: Any) -> str:
    key = ".".join(str(part) for part in item["loc"])
    message = item["msg"].removeprefix("Value error, ")
    if isinstance(item["input"], Mapping) and item["type"] == "value_error":  # about several keys together
        return f"{key}: {message}" if key else message
    if item["type"] == "extra_forbidden":
        return f"{key}: unknown key"
    if item["type"] == "missing":
        return f"{key}: required key is missing"
    if item["type"] == "union_tag_not_found":
        return f"{key}: {item['ctx']['discriminator']} is missing"
    if item["type"] == "union_tag_invalid":
        context = item["ctx"]
        return f"{key}: {context['discriminator']} is {context['tag']!r}, not one of {context['expected_tags']}"
    got = repr(item["input"])
    return f"{key}: {message} (got {got if len(got) <= SHOWN_CHARACTERS else got[:SHOWN_CHARACTERS] + '…'})"
