"""What an image's objects are inside this package; formats convert to it at the edge."""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Boxes:
    """The objects of one image.

    Attributes:
        xyxy: left, top, right, bottom in pixels, float32 [n, 4].
        labels: class numbers, int32 [n].
        ignore: crowds, ignored regions and difficult objects, bool [n]: metrics neither count nor punish them,
            losses skip them.
    """

    xyxy: NDArray[np.float32] = field(default_factory=lambda: np.zeros((0, 4), np.float32))
    labels: NDArray[np.int32] = field(default_factory=lambda: np.zeros(0, np.int32))
    ignore: NDArray[np.bool_] = field(default_factory=lambda: np.zeros(0, np.bool_))

    def __len__(self) -> int:
        return len(self.labels)

    def select(self, index: NDArray[np.bool_] | NDArray[np.int64]) -> "Boxes":
        """The boxes that a mask or index array picks."""
        return Boxes(self.xyxy[index], self.labels[index], self.ignore[index])
