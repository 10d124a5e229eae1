"""How often each training image is shown."""

import numpy as np
from numpy.typing import NDArray

from yolo_dist.data.balanced_order import repeat_factors
from yolo_dist.data.mixture import Images, Mixture
from yolo_dist.errors import ConfigError
from yolo_dist.train.config import TrainConfig


def sampling_factors(images: Images, config: TrainConfig) -> NDArray[np.float64] | None:
    """How often an epoch shows each image, float64 [images]; None for once each.

    Raises:
        ConfigError: class-balanced sampling of a mixture, whose sampling is that of its weights.
    """
    if config.sampling is None:
        return None
    if isinstance(images, Mixture):
        raise ConfigError(
            "sampling", ["class-balanced is for one dataset; in a mix, raise the weight of the one with rare classes"]
        )
    return repeat_factors(images, config.rare_below)
