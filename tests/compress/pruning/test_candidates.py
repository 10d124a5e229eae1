"""Networks in which nothing can be cut: what is said depends on why, and on what was tried."""

from typing import Any

import pytest
from small_networks import conv, head, random_network

from yolo_dist.compress.pruning import PruneConfig, make_plan
from yolo_dist.darknet.cfg import Layer, Shortcut
from yolo_dist.errors import PruneError

BARE = (conv(8, batch_normalize=0), conv(8, batch_normalize=0))
TIED = (conv(8), conv(8, groups=8), conv(8), Shortcut(from_layer=-3))
"""All channels are one set, which a depthwise convolution shares."""
SHAPES = {"method": "eagle-eye", "target_macs": 0.5, "reestimate_images": 8, "candidates": 1}
SHARES = {"method": "layerwise", "percents": [0.5]}


@pytest.mark.parametrize(
    ("layers", "request_", "said"),
    [
        (BARE, {"method": "normal"}, "no convolution here has batch normalisation, by whose γ channels are told"),
        (BARE, {"method": "slim", "scope": "full"}, "no convolution here has batch normalisation"),
        (TIED, SHARES, "no convolution creates channels that may go without others here; nothing can be cut; try --sc"),
        (TIED, SHAPES, "no convolution creates channels that may go without others here; nothing can be cut; try --sc"),
    ],
)
def test_why_nothing_can_be_cut(layers: tuple[Layer, ...], request_: dict[str, Any], said: str) -> None:
    with pytest.raises(PruneError, match=said):
        make_plan(random_network(*layers, *head()), PruneConfig.model_validate(request_))
