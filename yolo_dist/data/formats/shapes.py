"""Generated scenes: nothing is read, the card says how many images to make."""

from collections.abc import Iterator

from upath import UPath

from yolo_dist.data.card import Card, SplitSource
from yolo_dist.data.formats.registry import AnnotatedImage, annotation_format
from yolo_dist.data.scenes import CLASSES, Scene
from yolo_dist.errors import ConfigError


@annotation_format("shapes")
def read(root: UPath, source: SplitSource, card: Card) -> Iterator[AnnotatedImage]:  # noqa: ARG001
    """The scenes of a split.

    Raises:
        ConfigError: the card does not say how to make the split, or has other classes.
    """
    if source.generate is None:
        raise ConfigError(f"dataset {card.name}", ["a split of format shapes needs the key generate"])
    if card.classes != CLASSES:
        raise ConfigError(f"dataset {card.name}", [f"classes must be {', '.join(CLASSES)}"])
    settings = source.generate
    size = (settings.width, settings.height)
    for index in range(settings.images):
        scene = Scene(index, settings)
        yield AnnotatedImage(f"{index:06d}", scene, str(scene), scene.boxes, size=size)
