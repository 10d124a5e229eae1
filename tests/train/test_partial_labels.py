"""The loss where sources label some classes only: what a source cannot know never counts against the network."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scalar_loss import by_loops, scalar_ciou, scalar_giou
from test_loss import IMAGES, ground_truth, matches_of, network_of, raw_outputs
from torch import Tensor

from yolo_dist.darknet.network import Network
from yolo_dist.train.loss import DetectionLoss, Loss, LossConfig

Truth = tuple[Tensor, Tensor, Tensor]
FIRST_KNOWS_LESS = torch.tensor([[True, False, True], [True, True, True], [False, True, False]])


def truth_of(known: Tensor, boxes: int) -> Truth:
    """Boxes of classes that their image's source labels."""
    xyxy, labels, images = ground_truth(boxes, known.shape[1])
    possible = known[images, labels]
    return xyxy[possible], labels[possible], images[possible]


def loss_of(network: Network, raws: list[Tensor], truth: Truth, known: Tensor | None, iou_share: float = 0.4) -> Loss:
    return DetectionLoss(network, LossConfig())(raws, matches_of(network, truth), IMAGES, iou_share, known)


@pytest.mark.parametrize("iou_share", [0.0, 0.4, 1.0])
@pytest.mark.parametrize("measure", ["giou", "ciou"])
@pytest.mark.parametrize("boxes", [0, 7, 60])
def test_terms_are_those_of_a_rewrite_with_loops(boxes: int, measure: str, iou_share: float) -> None:
    network, known = network_of(), FIRST_KNOWS_LESS
    raws, truth = raw_outputs(network), truth_of(known, boxes)
    config = LossConfig.model_validate({"iou": measure})
    loss = DetectionLoss(network, config)(raws, matches_of(network, truth), IMAGES, iou_share, known)
    scalar = {"giou": scalar_giou, "ciou": scalar_ciou}[measure]
    sets = [set(row.nonzero().flatten().tolist()) for row in known]
    expected = by_loops(network, raws, truth, config, iou_share, scalar, sets)
    assert loss.terms.tolist() == pytest.approx(expected, rel=1e-4, abs=1e-6)
    assert loss.terms.tolist() != loss_of(network, raws, truth, None).terms.tolist()


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 40), st.integers(0, 1000), st.sampled_from([1, 3, 80]))
def test_where_all_is_known_loss_and_gradients_are_those_without_it(boxes: int, seed: int, classes: int) -> None:
    network = network_of(classes)
    truth = ground_truth(boxes, classes, seed=seed)
    everything = torch.ones(IMAGES, classes, dtype=torch.bool)
    found = []
    for known in (None, everything):
        raws = [raw.requires_grad_() for raw in raw_outputs(network, seed=seed)]
        loss = loss_of(network, raws, truth, known)
        found.append([loss.total, loss.terms, *torch.autograd.grad(loss.total, raws)])
    for without, having in zip(*found, strict=True):
        assert torch.equal(without, having)


def test_unknown_classes_have_no_gradient_and_known_ones_that_of_always() -> None:
    network, known = network_of(), FIRST_KNOWS_LESS
    truth = truth_of(known, 60)
    raws = [raw.requires_grad_() for raw in raw_outputs(network)]
    gradients = torch.autograd.grad(loss_of(network, raws, truth, known).total, raws)
    usual = torch.autograd.grad(loss_of(network, raws, truth, None).total, raws)
    for gradient, plain in zip(gradients, usual, strict=True):
        for image, row in enumerate(known):
            assert (gradient[image, ..., 5:][..., ~row] == 0).all()
            assert torch.equal(gradient[image, ..., 5:][..., row], plain[image, ..., 5:][..., row])
            assert torch.equal(gradient[image, ..., :4], plain[image, ..., :4])
    assert any((plain[0, ..., 6] != 0).any() for plain in usual)


def test_a_cell_without_an_object_is_not_punished_where_the_network_sees_an_unknown_class() -> None:
    """And is where it sees a known one, as before."""
    network, known = network_of(), FIRST_KNOWS_LESS
    raws = [raw.requires_grad_() for raw in raw_outputs(network)]
    nothing = ground_truth(0)
    gradients = torch.autograd.grad(loss_of(network, raws, nothing, known).total, raws)
    usual = torch.autograd.grad(loss_of(network, raws, nothing, None).total, raws)
    for raw, gradient, plain in zip(raws, gradients, usual, strict=True):
        for image, row in enumerate(known):
            sees_known = row[raw[image, ..., 5:].argmax(dim=-1)]
            assert torch.equal(gradient[image, ..., 4][sees_known], plain[image, ..., 4][sees_known])
            assert (gradient[image, ..., 4][~sees_known] == 0).all()
    assert (gradients[0][0, ..., 4] == 0).any()
    assert (gradients[0][1, ..., 4] > 0).all()


def test_an_object_is_learnt_although_the_network_takes_it_for_an_unknown_class() -> None:
    network, known = network_of(), FIRST_KNOWS_LESS
    raws = [torch.zeros_like(raw) for raw in raw_outputs(network)]
    for raw in raws:
        raw[..., 6] = 5  # class 1, which the source of image 0 does not label
        raw.requires_grad_()
    truth = (torch.tensor([[12.0, 11, 26, 21]]), torch.tensor([2]), torch.tensor([0]))
    gradients = torch.autograd.grad(loss_of(network, raws, truth, known, iou_share=1.0).total, raws)
    usual = torch.autograd.grad(loss_of(network, raws, truth, None, iou_share=1.0).total, raws)
    (match, *_) = [match for match in matches_of(network, truth) if len(match)]
    column, row = match.cell[0].tolist()
    place = (0, int(match.anchor[0]), row, column)
    assert gradients[0][(*place, 4)] == usual[0][(*place, 4)] != 0
    assert (gradients[0][0, ..., 4] != 0).sum() == len(match)


def test_the_likeliest_class_decides_but_is_not_pulled_on() -> None:
    """Without objects nothing teaches a class; a source cannot make the network call its background unknown."""
    network = network_of()
    raws = [raw.requires_grad_() for raw in raw_outputs(network)]
    for gradient in torch.autograd.grad(loss_of(network, raws, ground_truth(0), FIRST_KNOWS_LESS).total, raws):
        assert (gradient[..., 5:] == 0).all()


@settings(max_examples=10, deadline=None)
@given(st.integers(1, IMAGES - 1), st.integers(0, 1000))
def test_the_losses_of_shares_add_up_to_the_loss_of_the_batch(cut: int, seed: int) -> None:
    network, known = network_of(), FIRST_KNOWS_LESS
    raws, truth = raw_outputs(network, seed=seed), truth_of(known, 30)
    counts = torch.tensor([float(len(match)) for match in matches_of(network, truth)])

    def share(first: int, last: int) -> Tensor:
        here = (truth[2] >= first) & (truth[2] < last)
        own = matches_of(network, (truth[0][here], truth[1][here], truth[2][here] - first))
        loss = DetectionLoss(network, LossConfig())
        return loss([raw[first:last] for raw in raws], own, IMAGES, 0.4, known[first:last], counts).terms

    whole = loss_of(network, raws, truth, known).terms
    torch.testing.assert_close(share(0, cut) + share(cut, IMAGES), whole, rtol=1e-5, atol=1e-6)
