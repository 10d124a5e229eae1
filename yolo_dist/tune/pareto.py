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
    if len(reference) == 2:  # without recursion, for most of the time would go into it
        return float(heights @ (reference[0] - np.minimum.accumulate(points[:, 0])))
    slices = (hypervolume(points[: number + 1, :-1], reference[:-1]) for number in range(len(points)))
    return float(sum(height * area for height, area in zip(heights, slices, strict=True) if height > 0))


def hypervolumes(losses: ArrayLike, reference: Sequence[float]) -> list[float]:
    """Hypervolume after each point, in their order.

    A point adds its own box less what the front already covers of it, which is the hypervolume of the front's points
    moved into the box (exclusive hypervolume; While et al. 2012, "A Fast Way of Calculating Exact Hypervolumes").
    """
    corner, covered, volumes = np.asarray(reference, float), 0.0, list[float]()
    front = np.zeros((0, len(reference)))
    for point in np.asarray(losses, float).reshape(-1, len(reference)):
        if (point < corner).all() and not (front <= point).all(1).any():
            within = np.maximum(front, point)
            covered += float(np.prod(corner - point)) - hypervolume(within[front_of(within)], reference)
            front = np.vstack([front[~(point <= front).all(1)], point])
        volumes.append(covered)
    return volumes


def knee_of(front: ArrayLike) -> int:
    """The point of a front with the smallest sum of losses, each scaled to what the front spans: in Manhattan distance
    the nearest to the best of everything (Chiu et al. 2016, "Minimum Manhattan Distance Approach to Multiple Criteria
    Decision Making"). With two objectives it is also the farthest from the line through the front's ends (Das 1999)."""
    points = np.atleast_2d(np.asarray(front, float))
    low, span = points.min(0), np.ptp(points, axis=0)
    return int(((points - low) / np.where(span > 0, span, 1)).sum(1).argmin())
