"""The loss: against a scalar rewrite with loops, closed forms of its box measures, and shares of a batch."""

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scalar_loss import by_loops, scalar_ciou, scalar_giou
from small_networks import cfg_of, conv
from torch import Tensor

from yolo_dist.darknet.cfg import Route, Yolo
from yolo_dist.darknet.network import Network
from yolo_dist.darknet.zoo import zoo_cfg
from yolo_dist.train.loss import DetectionLoss, LossConfig, box_measure, ciou, giou, smoothed
from yolo_dist.train.targets import Matches, assign_all

SIZE = (64, 32)
ANCHORS = ((6.0, 8.0), (14.0, 10.0), (22.0, 26.0), (40.0, 30.0))
IMAGES = 3


def network_of(classes: int = 3, training: tuple[tuple[str, str], ...] = ()) -> Network:
    """Two heads, at strides 8 and 16, of two anchors each."""
    options: dict[str, Any] = {"anchors": ANCHORS, "num": 4, "classes": classes, "training": training}
    fine, coarse = Yolo(mask=(0, 1), scale_x_y=1.1, **options), Yolo(mask=(2, 3), **options)
    output = {"batch_normalize": 0, "activation": "linear"}
    return Network(
        cfg_of(
            conv(4),
            conv(fine.channels, 1, 8, **output),
            fine,
            Route(layers=0),
            conv(coarse.channels, 1, 16, **output),
            coarse,
            size=SIZE,
        )
    )


def raw_outputs(network: Network, images: int = IMAGES, seed: int = 0) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    width, height = SIZE
    return [
        torch.randn(images, 2, height // head.stride, width // head.stride, 5 + head.classes, generator=generator)
        for head in network.heads
    ]


def ground_truth(count: int, classes: int = 3, images: int = IMAGES, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Boxes in and partly beyond the image, labels, image numbers in order."""
    generator = torch.Generator().manual_seed(seed)
    corner = torch.rand(count, 2, generator=generator) * torch.tensor(SIZE) - 4
    size = torch.rand(count, 2, generator=generator) * torch.tensor([40.0, 28.0]) + 3
    image = torch.randint(images, (count,), generator=generator).sort().values
    return torch.cat((corner, corner + size), 1), torch.randint(classes, (count,), generator=generator), image


def matches_of(network: Network, truth: tuple[Tensor, Tensor, Tensor]) -> list[Matches]:
    return assign_all(network.heads, SIZE, *truth)


@pytest.mark.parametrize("iou_share", [0.0, 0.4, 1.0])
@pytest.mark.parametrize("measure", ["giou", "ciou"])
@pytest.mark.parametrize(("classes", "boxes"), [(3, 7), (1, 7), (80, 4), (3, 0), (3, 60)])
def test_terms_are_those_of_a_rewrite_with_loops(classes: int, boxes: int, measure: str, iou_share: float) -> None:
    """60 boxes on 3 images put several matches into one cell."""
    network = network_of(classes)
    raws, truth = raw_outputs(network), ground_truth(boxes, classes)
    config = LossConfig.model_validate({"iou": measure})
    loss = DetectionLoss(network, config)(raws, matches_of(network, truth), IMAGES, iou_share)
    scalar = {"giou": scalar_giou, "ciou": scalar_ciou}[measure]
    expected = by_loops(network, raws, truth, config, iou_share, scalar)
    assert loss.terms.tolist() == pytest.approx(expected, rel=1e-4, abs=1e-6)
    assert loss.total.item() == pytest.approx(sum(expected), rel=1e-4)


@pytest.mark.parametrize("epsilon", [0.0, 0.1, 0.6])
def test_smoothed_labels_are_those_of_the_rewrite_and_change_the_class_term_alone(epsilon: float) -> None:
    network, truth = network_of(), ground_truth(7)
    raws, matches = raw_outputs(network), matches_of(network, truth)
    config = LossConfig(label_smoothing=epsilon)
    box, objectness, cls = DetectionLoss(network, config)(raws, matches, IMAGES, 1.0).terms.tolist()
    assert (box, objectness, cls) == pytest.approx(by_loops(network, raws, truth, config, 1.0), rel=1e-4)
    plain = DetectionLoss(network, LossConfig())(raws, matches, IMAGES, 1.0).terms.tolist()
    assert [box, objectness] == plain[:2]
    assert (cls == plain[2]) == (epsilon == 0)


def test_smoothed_labels_want_probabilities_half_of_epsilon_from_certainty() -> None:
    targets = smoothed(torch.tensor([1.0, 0.0, 0.0]), 0.1)
    assert targets.tolist() == pytest.approx([0.95, 0.05, 0.05])
    wanted = torch.logit(torch.tensor([0.95, 0.05, 0.05])).requires_grad_()
    torch.nn.functional.binary_cross_entropy_with_logits(wanted, targets).backward()
    assert wanted.grad is not None
    assert wanted.grad.abs().max() < 1e-7


def test_the_largest_of_several_matches_in_one_cell_is_its_target_in_whatever_order_they_come() -> None:
    """Two boxes around one centre: the network's guess, an anchor, overlaps the first more than the second."""
    network = network_of()
    raws = [torch.zeros_like(raw) for raw in raw_outputs(network)]
    for raw in raws:
        raw[..., 4] = 1
    good, bad = [12.0, 11.0, 26.0, 21.0], [4.0, 11.0, 34.0, 21.0]
    config = LossConfig(box_gain=0, class_gain=0)

    def objectness(*boxes: list[float]) -> float:
        truth = (torch.tensor(boxes), torch.zeros(len(boxes)).long(), torch.zeros(len(boxes)).long())
        found = DetectionLoss(network, config)(raws, matches_of(network, truth), IMAGES, 1.0).total.item()
        assert found == pytest.approx(sum(by_loops(network, raws, truth, config, 1.0)), rel=1e-5)
        return found

    assert objectness(good, bad) == objectness(bad, good) != objectness(bad)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 12), st.integers(1, IMAGES - 1), st.integers(0, 1000))
def test_the_losses_of_shares_add_up_to_the_loss_of_the_batch(boxes: int, cut: int, seed: int) -> None:
    network = network_of()
    raws, truth = raw_outputs(network, seed=seed), ground_truth(boxes, seed=seed)
    for raw in raws:
        raw.requires_grad_()
    whole = DetectionLoss(network, LossConfig())(raws, matches_of(network, truth), IMAGES, 0.7)
    gradients = torch.autograd.grad(whole.total, raws)
    counts = torch.tensor([float(len(match)) for match in matches_of(network, truth)])

    def share(first: int, last: int) -> tuple[Tensor, Tensor, tuple[Tensor, ...]]:
        here = (truth[2] >= first) & (truth[2] < last)
        own = (truth[0][here], truth[1][here], truth[2][here] - first)
        loss = DetectionLoss(network, LossConfig())
        parts = [raw[first:last] for raw in raws]
        found = loss(parts, matches_of(network, own), IMAGES, 0.7, counts=counts)
        return found.total, found.terms, torch.autograd.grad(found.total, raws)

    shares = [share(0, cut), share(cut, IMAGES)]
    torch.testing.assert_close(shares[0][0] + shares[1][0], whole.total, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(shares[0][1] + shares[1][1], whole.terms, rtol=1e-5, atol=1e-6)
    for one, other, together in zip(shares[0][2], shares[1][2], gradients, strict=True):
        torch.testing.assert_close(one + other, together, rtol=1e-5, atol=1e-7)


def test_images_without_objects_only_teach_that_there_is_nothing() -> None:
    network = network_of()
    raws = [raw.requires_grad_() for raw in raw_outputs(network)]
    loss = DetectionLoss(network, LossConfig())(raws, matches_of(network, ground_truth(0)), IMAGES, 1.0)
    assert loss.terms[0] == loss.terms[2] == 0
    for gradient in torch.autograd.grad(loss.total, raws):
        assert (gradient[..., 4] > 0).all()
        assert (gradient[..., :4] == 0).all()
        assert (gradient[..., 5:] == 0).all()


def test_a_single_class_has_no_class_term() -> None:
    network = network_of(classes=1)
    loss = DetectionLoss(network, LossConfig())(
        raw_outputs(network), matches_of(network, ground_truth(8, classes=1)), IMAGES, 1.0
    )
    assert loss.terms[2] == 0
    assert loss.terms[0] > 0


def test_objectness_targets_do_not_pull_on_the_boxes() -> None:
    """The overlap in the target is a number, not a path for gradients."""
    network = network_of()
    raws = [raw.requires_grad_() for raw in raw_outputs(network)]
    config = LossConfig(box_gain=0, class_gain=0)
    loss = DetectionLoss(network, config)(raws, matches_of(network, ground_truth(8)), IMAGES, 1.0)
    for gradient in torch.autograd.grad(loss.total, raws):
        assert (gradient[..., :4] == 0).all()


def test_huge_logits_stay_finite() -> None:
    network = network_of()
    raws = [raw * 1000 for raw in raw_outputs(network)]
    assert DetectionLoss(network, LossConfig())(
        raws, matches_of(network, ground_truth(8)), IMAGES, 1.0
    ).total.isfinite()


@pytest.mark.parametrize(
    ("configured", "training", "expected"),
    [
        ("auto", (), "giou"),
        ("auto", (("iou_loss", "ciou"),), "ciou"),
        ("auto", (("iou_loss", "giou"),), "giou"),
        ("giou", (("iou_loss", "ciou"),), "giou"),
        ("ciou", (), "ciou"),
    ],
)
def test_the_box_measure_follows_the_cfg_unless_told(
    configured: str, training: tuple[tuple[str, str], ...], expected: str
) -> None:
    assert box_measure(network_of(training=training), LossConfig.model_validate({"iou": configured})) == expected


@pytest.mark.parametrize(
    ("name", "expected"), [("yolov4", "ciou"), ("yolov4-tiny", "ciou"), ("yolov3", "giou"), ("yolov3-tiny", "giou")]
)
def test_the_zoo_is_trained_by_its_own_measure(name: str, expected: str) -> None:
    with torch.device("meta"):
        network = Network(zoo_cfg(name))
    assert box_measure(network, LossConfig()) == expected


@pytest.mark.parametrize(
    ("one", "other", "expected_giou", "expected_ciou"),
    [
        pytest.param((0, 0, 2, 2), (0, 0, 2, 2), 1.0, 1.0, id="the same box"),
        pytest.param((0, 0, 1, 1), (1, 0, 2, 1), 0.0, -1 / 5, id="side by side"),
        pytest.param((0, 0, 1, 1), (2, 0, 3, 1), -1 / 3, -4 / 10, id="one apart"),
        pytest.param((0, 0, 4, 4), (1, 1, 3, 3), 1 / 4, 1 / 4, id="concentric squares"),
        pytest.param((0, 0, 2, 2), (1, 1, 3, 3), 1 / 7 - 2 / 9, 1 / 7 - 2 / 18, id="a corner shared"),
        pytest.param((0, 0, 1, 1), (3, 3, 4, 4), -14 / 16, -18 / 32, id="diagonal and apart"),
    ],
)
def test_box_measures_in_closed_form(
    one: tuple[float, ...], other: tuple[float, ...], expected_giou: float, expected_ciou: float
) -> None:
    boxes, others = torch.tensor([one], dtype=torch.float64), torch.tensor([other], dtype=torch.float64)
    assert giou(boxes, others).item() == pytest.approx(expected_giou)
    assert giou(others, boxes).item() == pytest.approx(expected_giou)
    assert ciou(boxes, others).item() == pytest.approx(expected_ciou)


def test_ciou_punishes_another_aspect_at_the_same_centre() -> None:
    """3×1 in 1×3: IoU 1/5, aspect term 4/π²·(atan 3 − atan ⅓)²."""
    aspect = 4 / math.pi**2 * (math.atan(3) - math.atan(1 / 3)) ** 2
    expected = 1 / 5 - aspect / (1 - 1 / 5 + aspect) * aspect
    found = ciou(
        torch.tensor([[0.0, 1, 3, 2]], dtype=torch.float64), torch.tensor([[1.0, 0, 2, 3]], dtype=torch.float64)
    )
    assert found.item() == pytest.approx(expected)


def random_pairs(count: int = 20) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(4)
    corners = torch.rand(2, count, 2, generator=generator, dtype=torch.float64) * 4
    sizes = torch.rand(2, count, 2, generator=generator, dtype=torch.float64) * 4 + 0.5
    boxes, others = torch.cat((corners, corners + sizes), 2)
    return boxes, others


def test_the_gradient_of_giou_is_the_numerical_one() -> None:
    boxes, others = random_pairs()
    assert torch.autograd.gradcheck(giou, (boxes.requires_grad_(), others))


def test_the_gradient_of_ciou_is_the_numerical_one_with_its_weight_held() -> None:
    boxes, others = random_pairs()
    (gradient,) = torch.autograd.grad(ciou(boxes.requires_grad_(), others).sum(), boxes)
    step = 1e-6
    for pair, (box, other) in enumerate(zip(boxes.tolist(), others.tolist(), strict=True)):
        plain, full = scalar_ciou(box, other, weight=0.0), scalar_ciou(box, other, weight=1.0)
        aspect = plain - full
        weight = (plain - scalar_ciou(box, other)) / aspect
        for side in range(4):
            ahead, behind = list(box), list(box)
            ahead[side] += step
            behind[side] -= step
            slope = (scalar_ciou(ahead, other, weight) - scalar_ciou(behind, other, weight)) / (2 * step)
            assert gradient[pair, side].item() == pytest.approx(slope, rel=1e-4, abs=1e-6)


def test_predictions_in_half_precision_give_the_loss_in_float32() -> None:
    network = network_of()
    raws = [raw.bfloat16() for raw in raw_outputs(network)]
    loss = DetectionLoss(network, LossConfig())(raws, matches_of(network, ground_truth(6)), IMAGES, 1.0)
    full = DetectionLoss(network, LossConfig())(
        [raw.float() for raw in raws], matches_of(network, ground_truth(6)), IMAGES, 1.0
    )
    assert loss.total.dtype == torch.float32
    assert torch.equal(loss.total, full.total)
