"""Which trackers a run has."""

from typing import Literal

from yolo_dist.config import Config


class WandbConfig(Config):
    """Weights & Biases; the key comes from the environment (WANDB_API_KEY) or ~/.netrc, never from a recipe."""

    project: str = "yolo-dist"
    """Project that the runs belong to."""
    mode: Literal["online", "offline", "disabled"] = "offline"
    """`offline` writes beside the run and needs no network; `online` does so too where there is no key or no server."""


class TrackingConfig(Config):
    """Trackers beside `metrics.jsonl`, which is always written."""

    wandb: WandbConfig | None = None
    tensorboard: bool = False
    """Event files for TensorBoard in the run's folder `tensorboard/`."""

    @property
    def uses_wandb(self) -> bool:
        """Whether Weights & Biases gets anything."""
        return self.wandb is not None and self.wandb.mode != "disabled"
