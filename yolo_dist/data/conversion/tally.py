"""What a conversion kept and what it left out."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from yolo_dist.data.annotations import Boxes, Reason, Rejection
from yolo_dist.errors import ConversionError

SHOWN = 3


@dataclass
class Tally:
    """What was kept and what was left out; tallies of shards add up."""

    images: int = 0
    boxes: Counter[int] = field(default_factory=Counter)
    ignored: int = 0
    bad_images: list[Rejection] = field(default_factory=list)
    bad_boxes: list[Rejection] = field(default_factory=list)
    turned: list[Rejection] = field(default_factory=list)
    """Kept as stored, although it is not known whether their boxes count so."""

    def add(self, other: "Tally") -> None:
        """Count another shard too."""
        self.images += other.images
        self.boxes += other.boxes
        self.ignored += other.ignored
        self.bad_images += other.bad_images
        self.bad_boxes += other.bad_boxes
        self.turned += other.turned

    def keep(self, images: int, boxes: Boxes) -> None:
        """Count images that were kept, with all their boxes."""
        self.images += images
        self.boxes.update(boxes.labels[~boxes.ignore].tolist())
        self.ignored += int(boxes.ignore.sum())

    def check(self, max_bad: float, place: str) -> None:
        """Refuse a dataset of which too much is bad.

        Raises:
            ConversionError: more than `max_bad` of its images or boxes are, or nothing is left.
        """
        kept_boxes = self.boxes.total() + self.ignored
        for what, bad, kept in (("images", self.bad_images, self.images), ("boxes", self.bad_boxes, kept_boxes)):
            total = len(bad) + kept
            if len(bad) > max_bad * total:
                raise ConversionError(
                    f"{place}: {len(bad)} of {total} {what} are bad, more than {max_bad:.0%}; "
                    f"mend them or allow more with --max-bad. First: {_first(bad)}"
                )
        if not self.images:
            bad = self.bad_images
            raise ConversionError(f"{place}: no usable image is left of {len(bad)}. First: {_first(bad)}")

    def to_json(self) -> dict[str, Any]:
        """A JSON object."""
        rejections = {
            name: [(one.reason, one.place, one.detail) for one in bad]
            for name, bad in (("bad_images", self.bad_images), ("bad_boxes", self.bad_boxes), ("turned", self.turned))
        }
        return {"images": self.images, "boxes": sorted(self.boxes.items()), "ignored": self.ignored, **rejections}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> "Tally":
        """What `to_json` gave."""
        bad_images, bad_boxes, turned = (
            [Rejection(Reason(reason), place, detail) for reason, place, detail in values[name]]
            for name in ("bad_images", "bad_boxes", "turned")
        )
        return cls(values["images"], Counter(dict(values["boxes"])), values["ignored"], bad_images, bad_boxes, turned)


def _first(bad: list[Rejection]) -> str:
    return "; ".join(str(rejection) for rejection in bad[:SHOWN])
