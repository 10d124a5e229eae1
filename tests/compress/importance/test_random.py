"""Importance by lot: the same for any weights, another for another seed."""

import numpy as np
from small_networks import conv, head, random_network

from yolo_dist.compress.importance import MEASURES, Basis


def drawn(layers: tuple[int, ...] = (0, 1), weights: int = 0, seed: int = 0) -> list[list[float]]:
    network = random_network(conv(40), conv(40), *head(), seed=weights)
    return [values.tolist() for values in MEASURES["random"](network, layers, Basis(seed=seed)).values()]


def test_random_importance_does_not_depend_on_the_weights() -> None:
    assert drawn(weights=0) == drawn(weights=1)


def test_a_seed_gives_the_same_numbers_again_and_another_others() -> None:
    assert drawn(seed=3) == drawn(seed=3)
    assert drawn(seed=3) != drawn(seed=4)


def test_layers_of_the_same_size_draw_different_numbers() -> None:
    first, second = drawn()
    assert set(first).isdisjoint(second)


def test_a_layer_draws_the_same_alone_and_among_others() -> None:
    assert drawn(layers=(1,))[0] == drawn()[1]


def test_numbers_are_spread_evenly_over_0_to_1() -> None:
    network = random_network(conv(4000), *head())
    counts, _ = np.histogram(MEASURES["random"](network, [0], Basis())[0], bins=10, range=(0, 1))
    assert counts.sum() == 4000
    assert (abs(counts - 400) < 80).all()  # four standard deviations
