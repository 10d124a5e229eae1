"""Trade-offs between losses: which points no other beats, how much they cover, and where the bend is.

All of it is about losses, numbers that are better when smaller, [points, objectives].
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

Losses = NDArray[np.float64]


def front_of(losses: ArrayLike) -> list[int]:
    """Numbers of the points that none dominates: none is as good in everything and better in something."""
    points = np.atleast_2d(np.asarray(losses, float))
    if not points.size:
        return []
    no_worse = (points[:, None] <= points[None]).all(2)
    better = (points[:, None] < points[None]).any(2)
    return np.flatnonzero(~(no_worse & better).any(0)).tolist()


def hypervolume(losses: ArrayLike, reference: Sequence[float]) -> float:
    """Volume that points dominate within `reference`, the worst that counts (Zitzler and Thiele 1998).

    Objectives are sliced one after the other: exact, and quick for the few that a search has.
    """
    points = np.asarray(losses, float).reshape(-1, len(reference))
    points = points[(points < reference).all(1)]
    if not len(points):
        return 0.0
    if len(reference) == 1:
        return float(reference[0] - points.min())
    points = points[np.argsort(points[:, -1], kind="stable")]
    heights = np.diff(np.append(points[:, -1], reference[-1]))
    slices = (hypervolume(points[: number + 1, :-1], reference[:-1]) for number in range(len(points)))
    return float(sum(height * area for height, area in zip(heights, slices, strict=True) if height > 0))


def knee_of(front: ArrayLike) -> int:
    """The point of a front farthest in front of the plane through its ends (Das 1999), each objective scaled to what
    the front spans; with one objective the best."""
    points = np.atleast_2d(np.asarray(front, float))
    low, span = points.min(0), np.ptp(points, axis=0)
    return int(((points - low) / np.where(span > 0, span, 1)).sum(1).argmin())
