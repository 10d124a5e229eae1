"""What is wrong with the order of a recipe's stages: what each starts from, and what it learns from."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

State = Literal["float", "quantised"]
Problem = tuple[int, Any, str]
"""Number of a stage, the value that is wrong, and why."""


def order_problems(stages: Any) -> Iterator[Problem]:
    """Every mistake in the order of stages as they were read, whatever else may be wrong with them."""
    listed = [_with_names(stage) for stage in (stages if isinstance(stages, list | tuple) else ())]
    yield from _starts(listed)
    yield from quantization_problems(listed)
    yield from _teachers(listed)


def _with_names(stage: Any) -> dict[str, Any]:
    """A stage without an `id` or a `from` that is no text: nothing can start from it, and its own check tells of it."""
    values = stage if isinstance(stage, dict) else {}
    return {key: value for key, value in values.items() if key not in ("id", "from") or isinstance(value, str)}


def _starts(stages: Sequence[dict[str, Any]]) -> Iterator[Problem]:
    """Stages whose id was there before, or which start from none before them, or from one that makes no bundle."""
    seen: list[Any] = []
    files: list[Any] = []
    for number, stage in enumerate(stages):
        name, origin, kind = stage.get("id"), stage.get("from"), stage.get("kind")
        if name is not None and name in seen:
            yield number, name, "an earlier stage has the same id"
        if origin is not None and origin not in seen:
            yield number, origin, "from names no stage before this one"
        start = origin if origin is not None else seen[-1] if seen else None
        if start is not None and start in files:
            yield number, name, f"starts from {start}, an exported file and no bundle; name another stage with from"
        seen.append(name)
        files += [name] if kind == "export" else []


def quantization_problems(stages: Sequence[Mapping[str, Any]], model: State | None = None) -> Iterator[Problem]:
    """Stages that need a float network and start from a quantised one, or the other way round.

    Args:
        stages: as they were read.
        model: what the first of them starts from; None where that is not known.
    """
    states: dict[Any, State | None] = {}
    before = model
    for number, stage in enumerate(stages):
        name, kind = stage.get("id"), stage.get("kind")
        start = states.get(stage["from"]) if stage.get("from") is not None else before
        if start == "quantised" and kind in ("prune", "quantize"):
            yield number, name, f"kind {kind} needs a float network, and what it starts from is quantised"
        if kind == "export":
            asked = stage.get("format", "onnx")
            if asked == "onnx-int8" and start == "float":
                yield number, name, "format onnx-int8 needs a quantised network, and what it starts from is float"
            if asked == "onnx" and start == "quantised":
                yield number, name, "format onnx is float32, and what it starts from is quantised; take onnx-int8"
        if kind == "quantize" or stage.get("quantization") is not None:
            start = "quantised"
        elif kind == "prune" and start is None:
            start = "float"
        before = states[name] = start


def _teachers(stages: Sequence[dict[str, Any]]) -> Iterator[Problem]:
    """Stages whose teacher is a stage that is not before them, or one that makes no bundle."""
    kinds = {stage["id"]: stage.get("kind") for stage in stages if isinstance(stage.get("id"), str)}
    seen: list[Any] = []
    for number, stage in enumerate(stages):
        block = stage.get("distillation")
        teacher = block.get("teacher") if isinstance(block, dict) else None
        if isinstance(teacher, str) and teacher in kinds:
            if teacher not in seen:
                yield number, teacher, "distillation.teacher is no stage before this one"
            elif kinds[teacher] == "export":
                yield number, teacher, "distillation.teacher is an exported file and no bundle"
        seen.append(stage.get("id"))
