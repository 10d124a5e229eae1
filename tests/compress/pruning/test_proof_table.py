"""A proof in rows, sentences and a page."""

from dataclasses import replace

import pytest

from yolo_dist.compress.pruning.proof import Change, Proof
from yolo_dist.compress.pruning.proof_table import as_markdown, change_rows, sentences

PROOF = Proof(
    method="layer-channel",
    percent=0.5,
    threshold=0.01,
    images=8,
    max_abs_difference=2e-7,
    precision="float32",
    float32_difference=2e-7,
    tolerance=1e-4,
    parameters=Change(4160, 1040),
    macs=Change(4e6, 1e6),
    weight_bytes=Change(16_660, 4180),
    latency_ms=Change(9.0, 3.0),
    channels=({"layer": 0, "before": 16, "after": 5}, {"layer": 3, "before": 1024, "after": 0}),
)


def test_three_times_as_fast_with_a_quarter_of_the_operations_is_three_quarters_of_the_ideal() -> None:
    assert PROOF.as_json()["share_of_ideal"] == pytest.approx(0.75)
    assert "3.00 × as fast with 4.00 × fewer operations: 75% of the ideal speed-up" in sentences(PROOF)


def test_accuracy_has_a_row_once_it_was_measured() -> None:
    assert [row[0] for row in change_rows(PROOF)] == ["parameters", "MACs", "bytes of weights", "latency ms"]
    assert change_rows(PROOF.with_map50(0.8, 0.6))[-1] == ("mAP50", "0.800", "0.600", "75.0%")
    assert change_rows(PROOF.with_map50(0.0, 0.0))[-1] == ("mAP50", "0.000", "0.000", "–")


def test_the_precision_that_decided_is_said() -> None:
    assert sentences(PROOF)[0] == (
        "masked and compact network differ by 2.0e-07 in float32 on 8 images (at most 0.0001 is allowed)"
    )
    decided = replace(PROOF, precision="float64", max_abs_difference=1e-10, float32_difference=0.125)
    assert sentences(decided)[0].endswith(
        "by 1.0e-10 in float64 on 8 images (at most 0.0001 is allowed); float32 rounds such outputs by up to 1.2e-01"
    )


@pytest.mark.parametrize(("target", "missed"), [(None, False), (3.0, False), (2.9, True)])
def test_a_latency_over_its_target_is_said_in_one_line(target: float | None, missed: bool) -> None:
    said = [line for line in sentences(replace(PROOF, target_latency_ms=target)) if "target_latency_ms" in line]
    assert len(said) == missed
    assert all("its latency is 3.00 ms, over target_latency_ms 2.9:" in line for line in said)


def test_the_page_has_the_table_the_sentences_and_every_layer_that_lost_channels() -> None:
    page = as_markdown(PROOF)
    assert page.startswith("# Pruned by layer-channel at percent 0.5\n\n|  | before | after | left |\n| :-- | --: |")
    for line in (
        "| parameters | 4,160 | 1,040 | 25.0% |",
        *(f"- {sentence}" for sentence in sentences(PROOF)),
        "| layer | before | after |",
        "| 0 | 16 | 5 |",
        "| 3 | 1,024 | 0 |",
    ):
        assert line in page.splitlines()
