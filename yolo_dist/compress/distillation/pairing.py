"""What of a student is compared with what of its teacher."""

from collections.abc import Mapping, Sequence

from yolo_dist.darknet.cfg import Cfg, Convolutional, Depthwise
from yolo_dist.darknet.heads import Head
from yolo_dist.darknet.network import Network
from yolo_dist.darknet.shapes import infer_shapes
from yolo_dist.errors import ConfigError

Origins = Sequence[int | None]
"""For each layer the one it was in the first network of its chain; None for one that layer pruning added."""


def require_equal_heads(student: Network, teacher: Network, name: str) -> None:
    """Refuse a teacher whose predictions have other places or classes than the student's.

    Args:
        student, teacher: to compare.
        name: what the teacher is called in messages.

    Raises:
        ConfigError: the heads differ; names both.
    """
    ours, theirs = ([_describe(head) for head in network.heads] for network in (student, teacher))
    if ours != theirs:
        raise ConfigError(
            "distillation.teacher",
            [
                f"the student's heads are {' and '.join(ours)}, those of {name} {' and '.join(theirs)}; "
                "take a teacher with as many anchors and classes at the same strides"
            ],
        )


def paired_layers(student: Cfg, teacher: Cfg, origins: Origins, teacher_origins: Origins) -> dict[int, int]:
    """Convolutions of the student before those of its heads → the teacher's that they were, or still are.

    Args:
        student, teacher: of one chain of bundles.
        origins, teacher_origins: what each of their layers was at its beginning.

    Raises:
        ConfigError: none has a counterpart, or a pair has maps of different sizes.
    """
    place = {origin: layer for layer, origin in enumerate(teacher_origins) if origin is not None}
    feeders = set(student.head_convolutions.values())
    pairs = {
        layer: place[origin]
        for layer, (section, origin) in enumerate(zip(student.layers, origins, strict=True))
        if isinstance(section, Convolutional | Depthwise) and layer not in feeders and origin in place
    }
    require_equal_maps(student, teacher, pairs)
    return pairs


def require_equal_maps(student: Cfg, teacher: Cfg, pairs: Mapping[int, int]) -> None:
    """Refuse pairs of layers whose outputs are not equally wide and high.

    Raises:
        ConfigError: which pair, and its strides; or there is none.
    """
    remedy = "name pairs with distillation.layers, or take strategy 1, 2 or 3"
    if not pairs:
        raise ConfigError("distillation", [f"no layer of the student is one of the teacher's; {remedy}"])
    ours, theirs = infer_shapes(student), infer_shapes(teacher)
    for layer, other in pairs.items():
        if layer >= len(ours) or other >= len(theirs):
            raise ConfigError(
                "distillation.layers",
                [f"there is no pair {layer}: {other}; the student has {len(ours)} layers, the teacher {len(theirs)}"],
            )
        if (stride := ours[layer].stride) != (other_stride := theirs[other].stride):
            raise ConfigError(
                "distillation",
                [
                    f"layer {layer} of the student has stride {stride}, and layer {other} of the teacher, with which "
                    f"it would be compared, {other_stride}; {remedy}"
                ],
            )


def _describe(head: Head) -> str:
    return f"{len(head.anchors)} anchors × {5 + head.classes} at stride {head.stride}"
