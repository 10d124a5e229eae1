"""VisDrone-DET annotations: one text file an image, one box a line.

Columns: left, top, width, height in pixels, score, category, truncation, occlusion; a comma may follow the last one
(Zhu et al. 2021, "Detection and Tracking Meet Drones Challenge"). Categories count from 1 in the card's order of
classes; 0 is a region that was not annotated, the one after the last class an object of another kind. In ground truth
the score says whether a box counts: 0 is for those that evaluation ignores.
"""

from collections.abc import Iterator

from upath import UPath

from yolo_dist.data.annotations import ANY_CLASS, BoxCollector, Boxes, Reason, Rejection
from yolo_dist.data.card import Card, SplitSource
from yolo_dist.data.formats.file_content import decode_text
from yolo_dist.data.formats.folders import annotated_images
from yolo_dist.data.formats.registry import AnnotatedImage, annotation_format

IGNORED_REGION = 0
COLUMNS = 8


def parse(text: str, classes: int, place: str = "annotation") -> tuple[Boxes, tuple[Rejection, ...]]:
    """Boxes of one image, and what was rejected, by line.

    Ignored regions and "others" come back with ignore set and the label `ANY_CLASS`: whatever is detected there is no
    mistake.

    Args:
        text: the file.
        classes: how many the card has (10); the next category is "others", larger ones are unknown.
        place: the file's name, for messages.
    """
    collector = BoxCollector()
    for number, line in enumerate(text.splitlines(), start=1):
        if line.strip():
            _add_line(line.strip(), classes, f"{place}:{number}", collector)
    return collector.finish()


def _add_line(line: str, classes: int, place: str, collector: BoxCollector) -> None:
    columns = line.removesuffix(",").split(",")
    try:
        left, top, width, height, score = (float(column) for column in columns[:5])
        category, *_ = (int(column) for column in columns[5:])
    except ValueError:
        category = None
    if category is None or len(columns) != COLUMNS:
        collector.reject(Reason.BAD_NUMBER, place, f"{line!r} is not {COLUMNS} numbers")
        return
    others = classes + 1
    if not IGNORED_REGION <= category <= others:
        collector.reject(Reason.UNKNOWN_CLASS, place, f"category {category} is not in the card, which has {classes}")
        return
    nothing = category in (IGNORED_REGION, others)
    label = ANY_CLASS if nothing else category - 1
    collector.add((left, top, left + width, top + height), label, nothing or score == 0, place)


@annotation_format("visdrone_txt")
def read(root: UPath, source: SplitSource, card: Card) -> Iterator[AnnotatedImage]:
    """The images of a split.

    Raises:
        DataError: a folder or the list is missing.
    """
    classes = len(card.classes)
    return annotated_images(
        root, source, ".txt", lambda content, place: parse(decode_text(content, place), classes, place)
    )
