"""Several views of an image: where a box is found in one, it is on the image."""

from pathlib import Path

import numpy as np
import pytest
import tiny
import torch
from small_networks import conv, head, random_network
from torch import Tensor

from yolo_dist.darknet.heads import decode_heads
from yolo_dist.darknet.network import Network
from yolo_dist.data.image import plan_letterbox
from yolo_dist.data.shards import open_split
from yolo_dist.errors import ConfigError
from yolo_dist.evaluate.evaluator import EvaluationConfig, evaluate
from yolo_dist.evaluate.inference import Thresholds, find_objects, inference
from yolo_dist.evaluate.nms import Detections, suppress
from yolo_dist.evaluate.views import VIEWS, View, boxes_of_views, seen

BOX = (32, 64, 96, 160)
"""Left, top, right, bottom of a bright rectangle."""


def picture(width: int = 192, height: int = 256) -> Tensor:
    """A black image with one bright rectangle, and its mirror image, uint8 [2, 3, height, width]."""
    image = torch.zeros(1, 3, height, width, dtype=torch.uint8)
    left, top, right, bottom = BOX
    image[..., top:bottom, left:right] = 255
    return torch.cat((image, image.flip(3)))


def bright_box(images: Tensor) -> Tensor:
    """What finds the bright rectangle: its edges are where the sums over rows and columns say, float32 [B, 1, 6]."""
    light = images[:, 0].float() / 255
    found = []
    for image in light:
        rows, columns = image.amax(1), image.amax(0)
        row, column = torch.arange(len(rows)) + 0.5, torch.arange(len(columns)) + 0.5
        width, height = columns.sum(), rows.sum()
        x, y = (column * columns).sum() / width, (row * rows).sum() / height
        found.append(torch.stack((x - width / 2, y - height / 2, x + width / 2, y + height / 2)))
    boxes = torch.stack(found)[:, None]
    return torch.cat((boxes, torch.ones(len(boxes), 1, 2)), -1)


@pytest.mark.parametrize("view", [*VIEWS, View(0.5, mirrored=True), View(1.5, mirrored=True)])
def test_a_box_found_in_a_view_is_where_it_is_on_the_image(view: View) -> None:
    found, of_mirror_image = boxes_of_views(bright_box, picture(), [view])
    left, top, right, bottom = BOX
    assert found[0].tolist() == pytest.approx([left, top, right, bottom, 1, 1], abs=0.1)
    assert of_mirror_image[0].tolist() == pytest.approx([192 - right, top, 192 - left, bottom, 1, 1], abs=0.1)


@pytest.mark.parametrize(
    ("scale", "size"),
    [(1.0, (192, 256)), (0.75, (128, 192)), (1.25, (256, 320)), (0.01, (32, 32))],
)
def test_sides_of_a_view_are_whole_cells(scale: float, size: tuple[int, int]) -> None:
    view = seen(picture(), View(scale))
    assert (view.shape[3], view.shape[2]) == size
    assert view.dtype == torch.uint8


def test_a_view_as_it_is_is_the_image_and_a_mirrored_one_its_mirror_image() -> None:
    images = torch.randint(0, 256, (2, 3, 32, 64), dtype=torch.uint8)
    assert torch.equal(seen(images, View()), images)
    assert torch.equal(seen(seen(images, View(mirrored=True)), View(mirrored=True)), images)


def test_a_network_that_knows_no_left_and_right_finds_everything_twice() -> None:
    """1×1 convolutions: the mirrored view has the very boxes, at the mirrored cells."""
    network: Network = random_network(conv(4, 1, 1), conv(4, 1, 8), *head())

    def boxes_of(images: Tensor) -> Tensor:
        raws = network(images.float() / 255)
        assert len(raws) == 1
        even = raws[0].clone()
        even[..., 0] = 0  # a centre right in the middle of its cell
        return decode_heads(network.heads, [even])

    images = torch.randint(0, 256, (2, 3, 32, 64), dtype=torch.uint8)
    images = images.repeat_interleave(8, 2)[:, :, :32].repeat_interleave(8, 3)[..., :64]
    with torch.no_grad():
        once = boxes_of(images)
        twice = boxes_of_views(boxes_of, images, [View(), View(mirrored=True)])
    assert torch.equal(twice[:, : once.shape[1]], once)
    mirrored = twice[:, once.shape[1] :].reshape(2, 2, 4, 8, 6).flip(3).reshape(once.shape)
    torch.testing.assert_close(mirrored, once, rtol=1e-4, atol=1e-3)


def test_objects_of_all_views_go_through_one_suppression() -> None:
    """By hand: what is found in each view without suppression, brought back, joined, suppressed."""
    network, side = tiny.make_bundle().network, 128
    images = torch.randint(0, 256, (1, 3, side, side), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    everything = Thresholds(0.0, 1.0, 10_000, True)

    def found_in(view: View) -> Detections:
        letterbox = plan_letterbox(side, side, (seen(images, view).shape[3], seen(images, view).shape[2]))
        (found,) = find_objects(network, seen(images, view), [letterbox], everything)
        boxes = found.xyxy[:, [2, 1, 0, 3]] * [-1, 1, -1, 1] + [side, 0, side, 0] if view.mirrored else found.xyxy
        return Detections(boxes.astype(np.float32), found.scores, found.labels)

    with inference(network):
        views = [found_in(view) for view in VIEWS]
        (together,) = find_objects(
            network, images, [plan_letterbox(side, side, (side, side))], Thresholds(0.0, 0.5, 100, True), augmented=True
        )
    joined = Detections(*(np.concatenate([getattr(one, key) for one in views]) for key in ("xyxy", "scores", "labels")))
    expected = suppress(joined.select(np.argsort(-joined.scores, kind="stable")), 0.5, 100)
    assert min(len(one) for one in views) > 20
    assert len(together) == len(expected) == 100
    np.testing.assert_allclose(together.scores, expected.scores, rtol=1e-5)
    np.testing.assert_allclose(together.xyxy, expected.xyxy, atol=1e-2)


def test_an_evaluation_may_look_several_times_and_an_exported_file_may_not(tmp_path: Path) -> None:
    shards = open_split(tiny.write_shards(tmp_path), "val")
    network = tiny.make_bundle().network
    plain, augmented = (
        evaluate(network, shards, tiny.SIZE, EvaluationConfig(batch_size=2, augment=augment))
        for augment in (None, True)
    )
    assert plain is not None
    assert augmented is not None
    assert plain.detections[0].scores.tolist() != augmented.detections[0].scores.tolist()
    with pytest.raises(ConfigError, match=r"evaluation\.augment: an exported file takes one size of images"):
        evaluate(lambda images: images, shards, tiny.SIZE, EvaluationConfig(augment=True))
