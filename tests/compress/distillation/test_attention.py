"""Where layers look, and in which cells objects are."""

import torch
from made_batches import COMPARED, SIZE, comparison, two_heads

from yolo_dist.compress.distillation.attention import AttentionMaps, object_cells


def test_attention_is_the_sum_of_magnitudes_of_a_layers_channels() -> None:
    network = two_heads(1)
    pixels = torch.rand(2, 3, SIZE[1], SIZE[0])
    maps = AttentionMaps(network, COMPARED)
    network(pixels)
    _, features = network.forward_features(pixels, COMPARED)
    for attention, layer in zip(maps.take(), COMPARED, strict=True):
        torch.testing.assert_close(attention, sum(features[layer][:, c].abs() for c in range(6)))


def test_maps_are_taken_once_and_a_stopped_listener_keeps_none() -> None:
    network = two_heads(1)
    pixels = torch.rand(1, 3, SIZE[1], SIZE[0])
    maps = AttentionMaps(network, [3, 3])
    network(pixels)
    first, second = maps.take()
    assert first is second, "two students' layers may look at the same of the teacher's"
    maps.stop()
    network(pixels)
    assert maps._maps == {}


def test_an_object_marks_the_whole_block_that_its_cell_covers() -> None:
    """At stride 2 a cell of the head at stride 16 is 8 × 8; the original marked its diagonal alone."""
    batch = comparison()
    coarse = [batch.matches[0], type(batch.matches[1])(*(tensor[:0] for tensor in vars(batch.matches[1]).values()))]
    alone = type(batch)(batch.student, batch.teacher, coarse, batch.images, batch.temperature)
    mask = object_cells(alone, batch.student.attention[0])
    column, row = coarse[0].cell[0].tolist()
    image = int(coarse[0].image[0])
    assert mask[image, row * 8 : row * 8 + 8, column * 8 : column * 8 + 8].eq(1).all()
    cells = {(int(i), *cell.tolist()) for i, cell in zip(coarse[0].image, coarse[0].cell, strict=True)}
    assert mask.sum() == 64 * len(cells)
