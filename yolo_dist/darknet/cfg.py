"""Darknet cfg files: text ⇄ typed data, and which layers a layer reads."""

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from typing import Any, TypeVar

from pydantic import ValidationError

from yolo_dist.darknet.sections import (
    SECTIONS,
    Activation,
    Avgpool,
    Convolutional,
    Depthwise,
    Dropout,
    Kernel,
    Layer,
    Maxpool,
    Net,
    Route,
    Section,
    Shortcut,
    SqueezeExcite,
    Upsample,
    Yolo,
)
from yolo_dist.errors import CfgError
from yolo_dist.storage import location

__all__ = [
    "Activation",
    "Avgpool",
    "Cfg",
    "Convolutional",
    "Depthwise",
    "Dropout",
    "Kernel",
    "Layer",
    "Maxpool",
    "Net",
    "Route",
    "Section",
    "Shortcut",
    "SqueezeExcite",
    "Upsample",
    "Yolo",
    "absolute",
    "format_cfg",
    "parse_cfg",
    "read_cfg",
    "sources",
]

NET_NAMES = ("net", "network")
SHORT_NAMES = {"conv": "convolutional", "max": "maxpool", "avg": "avgpool"}

SectionT = TypeVar("SectionT", bound=Section)


@dataclass(frozen=True)
class Cfg:
    """A network as data; every reference between its layers is known to be valid.

    Raises:
        CfgError: a layer reads one that does not exist before it, or one that only emits boxes; names both.
    """

    net: Net
    layers: tuple[Layer, ...]
    source: str = field(default="<cfg>", compare=False)
    """Where it came from, for error messages."""

    def __post_init__(self) -> None:
        for index, layer in enumerate(self.layers):
            if problem := _reference_problem(self.layers, index):
                raise CfgError(f"{self.place(index)}: {problem}")
            if isinstance(layer, Yolo) and index == 0:
                raise CfgError(f"{self.place(index)}: a head cannot be the first layer")

    def place(self, index: int) -> str:
        """A layer's name in error messages: source, index, type."""
        return f"{self.source}: {self.name_of(index)}"

    def name_of(self, index: int) -> str:
        """A layer's name: index, type."""
        return f"layer {index} [{self.layers[index].section}]"

    def with_layers(self, layers: Iterable[Layer]) -> "Cfg":
        """The same input with other layers."""
        return replace(self, layers=tuple(layers))

    def with_size(self, size: tuple[int, int]) -> "Cfg":
        """The same network for images of `size`: (width, height) in pixels."""
        return replace(self, net=self.net.model_copy(update={"width": size[0], "height": size[1]}))

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) of the input in pixels."""
        return self.net.width, self.net.height

    @property
    def head_convolutions(self) -> dict[int, int]:
        """Yolo layer → the convolution that feeds it.

        Raises:
            CfgError: another type of layer feeds it.
        """
        feeders = {i: sources(layer, i)[0] for i, layer in enumerate(self.layers) if isinstance(layer, Yolo)}
        for head, feeder in feeders.items():
            if not isinstance(self.layers[feeder], Convolutional):
                raise CfgError(f"{self.place(head)}: must follow a convolutional layer, not {self.place(feeder)}")
        return feeders


def absolute(index: int, layer: int) -> int:
    """A layer reference as an absolute index: −4 at layer 20 is 16, 0 is layer 0."""
    return layer + index if index < 0 else index


def sources(layer: Layer, index: int) -> tuple[int, ...]:
    """The absolute indices of the layers that `layer`, at `index`, reads, in its order; none: it reads the image."""
    match layer:
        case Route():
            return tuple(absolute(reference, index) for reference in layer.layers)
        case Shortcut():
            return (index - 1, *(absolute(reference, index) for reference in layer.from_layer))
        case _:
            return (index - 1,) if index else ()


def read_cfg(path: str | os.PathLike[str]) -> Cfg:
    """The cfg of a file or URL.

    Raises:
        CfgError: it cannot be read or is wrong; names file, line, section and key.
    """
    place = location(path)
    try:
        data = place.read_bytes()
    except OSError as error:
        raise CfgError(f"{path}: cannot be read ({error.strerror or error}); give the path of a Darknet cfg") from None
    # Comments of old files come in every encoding; wherever it matters, a replaced character is no known key or value.
    return parse_cfg(data.decode("utf-8-sig", errors="replace"), str(path))


def parse_cfg(text: str, source: str = "<cfg>") -> Cfg:
    """The cfg that a text describes.

    Raises:
        CfgError: `source:line: [section] key: what is wrong`.
    """
    sections = list(_split(text, source))
    if not sections or sections[0].name not in NET_NAMES:
        line = sections[0].line if sections else 1
        raise CfgError(f"{source}:{line}: the first section must be [net]")
    if len(sections) == 1:
        raise CfgError(f"{source}:{sections[0].line}: [net] is followed by no layers")
    net = sections[0].build(Net)
    layers = tuple(section.build(section.layer_class()) for section in sections[1:])
    for index, section in enumerate(sections[1:]):
        if problem := _reference_problem(layers, index):
            raise section.error(problem)
    return Cfg(net, layers, source)


def format_cfg(cfg: Cfg) -> str:
    """The text of a cfg: only keys that were set; parsing it gives `cfg` again."""
    return "\n\n".join(_format(section) for section in (cfg.net, *cfg.layers)) + "\n"


@dataclass
class _RawSection:
    name: str
    source: str
    line: int
    texts: dict[str, str] = field(default_factory=dict)
    lines: dict[str, int] = field(default_factory=dict)

    def error(self, problem: str, key: str | None = None) -> CfgError:
        where = f"{self.source}:{self.lines.get(key or '', self.line)}: [{self.name}]"
        return CfgError(f"{where} {key}: {problem}" if key else f"{where} {problem}")

    def add(self, key: str, text: str, line: int) -> None:
        if key in self.texts:
            raise CfgError(f"{self.source}:{line}: [{self.name}] {key}: was set before, in line {self.lines[key]}")
        self.texts[key], self.lines[key] = text, line

    def layer_class(self) -> type[Layer]:
        if self.name in NET_NAMES:
            raise self.error("a second one; only the first section is [net]")
        name = SHORT_NAMES.get(self.name, self.name)
        if name not in SECTIONS:
            raise self.error(f"unknown section{_suggestion(name, SECTIONS)}")
        return SECTIONS[name]

    def build(self, cls: type[SectionT]) -> SectionT:
        known = cls.keys()
        for key in self.texts:
            if key not in known and key not in cls.training_only:
                raise self.error(f"unknown key{_suggestion(key, known)}", key)
        values: dict[str, Any] = {key: text for key, text in self.texts.items() if key in known}
        if training := tuple((key, text) for key, text in self.texts.items() if key not in known):
            values["training"] = training
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            raise self._validation_error(error) from None

    def _validation_error(self, error: ValidationError) -> CfgError:
        first = error.errors()[0]
        message = first["msg"].removeprefix("Value error, ")
        if first["type"] == "missing":
            return self.error(f"required key {first['loc'][0]} is missing")
        if not first["loc"]:
            return self.error(message)
        key = str(first["loc"][0])
        return self.error(f"{message} (got {self.texts[key][:60]!r})", key)


def _split(text: str, source: str) -> Iterator[_RawSection]:
    current: _RawSection | None = None
    for number, raw in enumerate(text.replace("\r\n", "\n").replace("\r", "\n").split("\n"), start=1):
        line = raw.partition("#")[0].partition(";")[0].strip()
        if not line:
            continue
        if line.startswith("[") and line.endswith("]"):
            if current:
                yield current
            current = _RawSection(line[1:-1].strip(), source, number)
            continue
        key, equals, value = (part.strip() for part in line.partition("="))
        if not (key and equals):
            raise CfgError(f"{source}:{number}: expected [section] or key=value, got {line[:60]!r}")
        if current is None:
            raise CfgError(f"{source}:{number}: {key} stands before the first section; start with [net]")
        current.add(key, value, number)
    if current:
        yield current


def _suggestion(name: str, known: Iterable[str]) -> str:
    close = get_close_matches(name, known, n=1)
    return f"; did you mean {close[0]}?" if close else f"; known are {', '.join(sorted(known))}"


def _reference_problem(layers: tuple[Layer, ...], index: int) -> str | None:
    for source in sources(layers[index], index):
        if not 0 <= source < index:
            return f"reads layer {source}, but only layers 0 to {index - 1} come before it"
        if isinstance(layers[source], Yolo):
            return f"reads layer {source}, a yolo layer, which only emits boxes; route around it"
    return None


def _format(section: Section) -> str:
    values = ((key, getattr(section, name)) for key, name in section.keys().items() if name in section.model_fields_set)
    options = [(key, _text(value)) for key, value in values if value not in (None, ())]
    return "\n".join([f"[{section.section}]", *(f"{key}={text}" for key, text in (*options, *section.training))])


def _text(value: Any) -> str:
    if isinstance(value, tuple):
        return (",  " if isinstance(value[0], tuple) else ",").join(_text(item) for item in value)
    if isinstance(value, bool):
        return str(int(value))
    return repr(value).removesuffix(".0") if isinstance(value, float) else str(value)
