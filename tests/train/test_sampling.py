"""Training in which rare classes come more often."""

from pathlib import Path

import numpy as np
import pytest
from tiny_training import SIZE, scenes, tiny_network, training

from yolo_dist.data.mixture import Mixture
from yolo_dist.errors import ConfigError
from yolo_dist.train.loop import Trainer
from yolo_dist.train.sampling import sampling_factors


def test_an_epoch_is_as_long_as_its_repetitions_and_accumulates_over_all_of_them(tmp_path: Path) -> None:
    shards = scenes(tmp_path, images=8)
    config = training(sampling="class-balanced", rare_below=1.0, batch_size=3, nominal_batch=6)
    factors = sampling_factors(shards, config)
    assert factors is not None
    trainer = Trainer(tiny_network(), shards, config, SIZE, threads=0)
    samples = trainer.loader.samples
    assert samples == pytest.approx(factors.sum(), abs=0.5)
    assert samples > 8
    images = [trainer._images_of(step) for step in range(trainer.loader.steps)]
    assert sum(images) == samples
    assert [len(batch) for batch in trainer.loader.batches(0)] == images
    assert np.isfinite(trainer.run_epoch().loss["total"])


def test_without_sampling_every_image_comes_once(tmp_path: Path) -> None:
    shards = scenes(tmp_path, images=8)
    assert sampling_factors(shards, training()) is None
    assert Trainer(tiny_network(), shards, training(), SIZE).loader.samples == 8


def test_a_mixture_has_its_own_weights(mixture: Mixture) -> None:
    with pytest.raises(ConfigError, match="sampling: class-balanced is for one dataset; in a mix, raise the weight"):
        sampling_factors(mixture, training(sampling="class-balanced"))


def test_what_is_rare_is_only_asked_where_it_matters() -> None:
    with pytest.raises(ConfigError, match="rare_below is for sampling: class-balanced"):
        training(rare_below=0.1)
