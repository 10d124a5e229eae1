"""Every strategy against the same sums, written as loops over single numbers."""

from typing import Any

import pytest
import torch
from loops import box_distances, divergence_of_attention, divergence_of_rows
from made_batches import comparison

from yolo_dist.compress.distillation import STRATEGIES, Comparison, Outputs

CASES: dict[str, dict[str, Any]] = {
    "one class": {"classes": 1},
    "several classes": {"classes": 3},
    "centres that leave their cell": {"classes": 2, "scale_x_y": 1.2},
    "another temperature": {"classes": 2, "temperature": 1.5},
    "a share of a larger batch": {"classes": 2, "images": 8},
}


@pytest.fixture(params=CASES)
def batch(request: pytest.FixtureRequest) -> Comparison:
    return comparison(**CASES[request.param])


def terms(batch: Comparison, number: int) -> dict[str, float]:
    found = STRATEGIES[number].terms(batch)
    assert list(found) == list(STRATEGIES[number].weights)
    return {name: float(term.detach()) for name, term in found.items()}


def test_there_are_five_with_the_weights_of_their_definitions() -> None:
    assert {number: dict(strategy.weights) for number, strategy in STRATEGIES.items()} == {
        1: {"rows": 1e-3},
        2: {"scores": 1e-4, "boxes": 1e-3},
        3: {"scores": 1e-4, "boxes": 1e-3},
        4: {"scores": 1e-3, "boxes": 1e-3, "features": 1e-3},
        5: {"scores": 1e-3, "boxes": 1e-3, "features": 1e-3},
    }
    assert [number for number, strategy in STRATEGIES.items() if strategy.compares_features] == [4, 5]


def test_the_first_compares_whole_rows(batch: Comparison) -> None:
    assert terms(batch, 1)["rows"] == pytest.approx(divergence_of_rows(batch, first=0), rel=1e-4)


@pytest.mark.parametrize("number", [2, 3, 4, 5])
def test_the_others_compare_objectness_and_classes(batch: Comparison, number: int) -> None:
    assert terms(batch, number)["scores"] == pytest.approx(divergence_of_rows(batch, first=4), rel=1e-4)


def test_the_second_draws_boxes_to_the_truth_where_the_teacher_is_nearer(batch: Comparison) -> None:
    distances = box_distances(batch)
    assert {ours > theirs for ours, theirs, _ in distances} == {True, False}
    expected = sum(ours for ours, theirs, _ in distances if ours > theirs)
    assert terms(batch, 2)["boxes"] == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("number", [3, 4, 5])
def test_the_others_draw_boxes_to_the_teacher(batch: Comparison, number: int) -> None:
    expected = sum(between for *_, between in box_distances(batch))
    assert terms(batch, number)["boxes"] == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize(("number", "at_objects"), [(4, False), (5, True)])
def test_the_last_two_compare_where_layers_look(batch: Comparison, number: int, at_objects: bool) -> None:
    expected = divergence_of_attention(batch, at_objects)
    assert expected > 0
    assert terms(batch, number)["features"] == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize("number", [1, 3, 4, 5])
def test_a_student_that_gives_what_its_teacher_gives_has_nothing_to_learn(number: int) -> None:
    batch = comparison()
    same = Comparison(batch.teacher, batch.teacher, batch.matches, batch.images, batch.temperature)
    assert list(terms(same, number).values()) == pytest.approx([0] * len(STRATEGIES[number].weights), abs=1e-4)


@pytest.mark.parametrize("number", STRATEGIES)
def test_a_batch_without_objects_has_no_box_term_and_finite_others(number: int) -> None:
    batch = comparison()
    nothing = [type(match)(*(tensor[:0] for tensor in vars(match).values())) for match in batch.matches]
    found = terms(Comparison(batch.student, batch.teacher, nothing, batch.images, batch.temperature), number)
    assert found.get("boxes", 0.0) == 0
    assert all(torch.isfinite(torch.tensor(value)) for value in found.values())


@pytest.mark.parametrize("number", STRATEGIES)
def test_a_step_down_the_gradient_brings_the_student_nearer(number: int) -> None:
    batch = comparison()
    raws, attention = (
        [tensor.detach().requires_grad_() for tensor in tensors]
        for tensors in (batch.student.raws, batch.student.attention)
    )

    def total(raws: list[torch.Tensor], attention: list[torch.Tensor]) -> torch.Tensor:
        student = Outputs(batch.student.heads, raws, attention)
        again = Comparison(student, batch.teacher, batch.matches, batch.images, batch.temperature)
        found = STRATEGIES[number].terms(again)
        return torch.stack([found[name] * weight for name, weight in STRATEGIES[number].weights.items()]).sum()

    before = total(raws, attention)
    before.backward()
    moved = [
        [tensor.detach() if tensor.grad is None else tensor.detach() - 0.1 * tensor.grad for tensor in tensors]
        for tensors in (raws, attention)
    ]
    assert float(total(*moved).detach()) < float(before.detach())
