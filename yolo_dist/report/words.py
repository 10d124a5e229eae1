"""Numbers as people read them, and what a run achieved in words."""

from collections.abc import Callable

from yolo_dist.report.run import StageResult

MISSING = "–"
SPACE = "\u00a0"
"""Between number and unit: a line never breaks there."""
NOTICEABLE_RATIO = 1.05
NOTICEABLE_MAP = 0.0005


def short(value: float | None) -> str:
    """A count with three significant digits and a decimal prefix: 8 674 496 → "8.67 M"."""
    if value is None:
        return MISSING
    for factor, prefix in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= 0.9995 * factor:
            return f"{_three_digits(value / factor)}{SPACE}{prefix}"
    return f"{value:.0f}"


def size(count: float | None) -> str:
    """Bytes with a decimal prefix: 34 700 000 → "34.7 MB"."""
    if count is None:
        return MISSING
    number = short(count)
    return f"{number}B" if number[-1].isalpha() else f"{number}{SPACE}B"


def milliseconds(value: float | None) -> str:
    """A latency: 14.07 → "14.1 ms"."""
    return MISSING if value is None else f"{_three_digits(value)}{SPACE}ms"


def duration(seconds: float | None) -> str:
    """Wall time in its two largest units: 754 → "12 min 34 s"."""
    if seconds is None:
        return MISSING
    if seconds < 9.95:
        return f"{seconds:.1f}{SPACE}s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes == 0:
        return f"{rest}{SPACE}s"
    hours, minutes = divmod(minutes, 60)
    parts = (hours, "h", f"{minutes:02}", "min") if hours else (minutes, "min", f"{rest:02}", "s")
    return SPACE.join(str(part) for part in parts)


def accuracy(value: float | None) -> str:
    """A mAP, precision or recall: three decimals."""
    return MISSING if value is None else f"{value:.3f}"


def share(value: float | None) -> str:
    """A share of one as percent: 0.0221 → "2.2 %"."""
    if value is None:
        return MISSING
    percent = 100 * value
    digits = 1 if 0 < abs(percent) < 9.95 else 0
    return f"{percent:.{digits}f}{SPACE}%"


def change(value: float | None, reference: float | None) -> str:
    """Relative change with its sign: (2, 8) → "−75 %"; empty where either is missing."""
    if value is None or not reference:
        return ""
    relative = value / reference - 1
    return f"±0{SPACE}%" if abs(relative) < 0.0005 else f"{_sign(relative)}{share(abs(relative))}"


def difference(value: float | None, reference: float | None) -> str:
    """Difference of two mAPs with its sign: (0.863, 0.866) → "−0.003"; empty where either is missing."""
    if value is None or reference is None:
        return ""
    gap = value - reference
    return "±0.000" if abs(gap) < NOTICEABLE_MAP else f"{_sign(gap)}{abs(gap):.3f}"


def headline(first: StageResult, last: StageResult) -> str:
    """What the last model is beside the first, in one line."""
    if first.id == last.id:
        return _alone(last)
    parts = [_smaller(first, last), _faster(first, last), _as_accurate(first, last)]
    return _capital(", ".join(part for part in parts if part)) or _alone(last)


def summary(first: StageResult, last: StageResult) -> str:
    """The headline's numbers as a sentence."""
    if first.id == last.id:
        return f"Measured on “{last.id}”, the only stage with a model so far."
    clauses = [
        f"has {short(last.parameters)} of the {short(first.parameters)} parameters of “{first.id}”",
        _instead("its weights take", size, last.weight_bytes, first.weight_bytes),
        _instead("an image takes", milliseconds, last.latency_ms, first.latency_ms),
        _instead("its mAP50 is", accuracy, last.map50, first.map50),
    ]
    *most, final = (clause for clause in clauses if clause)
    listed = f"{', '.join(most)} and {final}" if most else final
    return f"The last model, “{last.id}”, {listed}."


def _instead(verb: str, text: Callable[[float | None], str], value: float | None, before: float | None) -> str:
    return "" if value is None or before is None else f"{verb} {text(value)} instead of {text(before)}"


def _alone(result: StageResult) -> str:
    parameters = f"{short(result.parameters)} parameters"
    return parameters if result.map50 is None else f"mAP50 {accuracy(result.map50)} with {parameters}"


def _smaller(first: StageResult, last: StageResult) -> str:
    if not first.parameters or last.parameters is None:
        return ""
    if first.parameters == last.parameters:
        return "the same size"
    return f"{share(last.parameters / first.parameters)} of the parameters"


def _faster(first: StageResult, last: StageResult) -> str:
    if not first.latency_ms or not last.latency_ms:
        return ""
    ratio = first.latency_ms / last.latency_ms
    if ratio >= NOTICEABLE_RATIO:
        return f"{ratio:.1f}× as fast"
    return "as fast" if ratio > 1 / NOTICEABLE_RATIO else f"{1 / ratio:.1f}× as slow"


def _as_accurate(first: StageResult, last: StageResult) -> str:
    if first.map50 is None or last.map50 is None:
        return ""
    return f"mAP50 {difference(last.map50, first.map50)}"


def _three_digits(value: float) -> str:
    magnitude = abs(value)
    return f"{value:.2f}" if magnitude < 9.995 else f"{value:.1f}" if magnitude < 99.95 else f"{value:.0f}"


def _sign(value: float) -> str:
    return "−" if value < 0 else "+"


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
