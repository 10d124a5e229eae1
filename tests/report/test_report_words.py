import re
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from yolo_dist.report import words
from yolo_dist.report.run import StageResult


def plain(text: str) -> str:
    return text.replace(words.SPACE, " ")


@pytest.mark.parametrize(
    ("write", "value", "expected"),
    [
        (words.short, 0, "0"),
        (words.short, 999, "999"),
        (words.short, 999.6, "1.00 k"),
        (words.short, 191_412, "191 k"),
        (words.short, 999_600, "1.00 M"),
        (words.short, 8_674_496, "8.67 M"),
        (words.short, 32.93e9, "32.9 G"),
        (words.size, 512, "512 B"),
        (words.size, 776_000, "776 kB"),
        (words.size, 34_720_000, "34.7 MB"),
        (words.milliseconds, 7.8, "7.80 ms"),
        (words.milliseconds, 136.4, "136 ms"),
        (words.duration, 0.25, "0.2 s"),
        (words.duration, 59.6, "1 min 00 s"),
        (words.duration, 754, "12 min 34 s"),
        (words.duration, 3_599.7, "1 h 00 min"),
        (words.duration, 7_380, "2 h 03 min"),
        (words.accuracy, 0.8634, "0.863"),
        (words.share, 0.0221, "2.2 %"),
        (words.share, 0.853, "85 %"),
        (words.share, 0.0, "0 %"),
    ],
)
def test_a_number_reads_as_people_write_it(write: Callable[[float | None], str], value: float, expected: str) -> None:
    assert plain(write(value)) == expected


@pytest.mark.parametrize(
    "write", [words.short, words.size, words.milliseconds, words.duration, words.accuracy, words.share]
)
def test_a_missing_number_is_a_dash(write: Callable[[float | None], str]) -> None:
    assert write(None) == words.MISSING


@given(st.integers(1000, 10**14))
def test_a_shortened_count_is_within_half_a_percent(count: int) -> None:
    number, prefix = words.short(count).split(words.SPACE)
    assert float(number) * {"k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12}[prefix] == pytest.approx(count, rel=5e-3)
    assert len(re.sub(r"\D", "", number)) <= 3 or prefix == "T"


@pytest.mark.parametrize(
    ("value", "reference", "expected"),
    [(2, 8, "−75 %"), (8, 2, "+300 %"), (5, 5, "±0 %"), (99, 100, "−1.0 %"), (None, 5, ""), (5, None, ""), (5, 0, "")],
)
def test_a_change_is_relative_and_signed(value: float | None, reference: float | None, expected: str) -> None:
    assert plain(words.change(value, reference)) == expected


@pytest.mark.parametrize(
    ("value", "reference", "expected"),
    [(0.863, 0.866, "−0.003"), (0.9, 0.8, "+0.100"), (0.5, 0.5002, "±0.000"), (None, 0.5, ""), (0.5, None, "")],
)
def test_a_difference_of_map_is_absolute_and_signed(
    value: float | None, reference: float | None, expected: str
) -> None:
    assert words.difference(value, reference) == expected


def stage(name: str, parameters: int, map50: float | None, latency_ms: float | None) -> StageResult:
    return StageResult(id=name, kind="train", parameters=parameters, map50=map50, latency_ms=latency_ms)


BASE = stage("base", 1000, 0.866, 40.0)


@pytest.mark.parametrize(
    ("last", "expected"),
    [
        (stage("tuned", 22, 0.863, 10.0), "2.2 % of the parameters, 4.0× as fast, mAP50 −0.003"),
        (stage("sparse", 1000, 0.87, 40.0), "The same size, as fast, mAP50 +0.004"),
        (stage("wide", 2000, 0.9, 80.0), "200 % of the parameters, 2.0× as slow, mAP50 +0.034"),
        (stage("half", 500, None, None), "50 % of the parameters"),
        (BASE, "mAP50 0.866 with 1.00 k parameters"),
    ],
)
def test_the_headline_compares_the_last_model_with_the_first(last: StageResult, expected: str) -> None:
    assert plain(words.headline(BASE, last)) == expected


def test_the_summary_leaves_out_what_was_not_measured() -> None:
    summary = plain(words.summary(BASE, stage("tuned", 22, 0.863, None)))
    expected = "has 22 of the 1.00 k parameters of “base” and its mAP50 is 0.863 instead of 0.866."
    assert summary == f"The last model, “tuned”, {expected}"
