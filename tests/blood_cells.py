"""A made dataset in the layout of BCCD: drawn scenes, VOC annotations, its three class names."""

from pathlib import Path
from xml.etree.ElementTree import Element, SubElement, tostring

from yolo_dist.data.scenes import Scene, SceneSettings

NAMES = ("RBC", "WBC", "Platelets")


def write_blood_cells(root: Path, images: int) -> None:
    """Write `images` training and half as many validation images with their lists."""
    for folder in ("JPEGImages", "Annotations", "ImageSets/Main"):
        (root / folder).mkdir(parents=True)
    settings = SceneSettings(images=images * 2, seed=3, width=96, height=64)
    stems = [f"BloodImage_{number:05d}" for number in range(images + images // 2)]
    for number, stem in enumerate(stems):
        scene = Scene(number, settings)
        (root / "JPEGImages" / f"{stem}.jpg").write_bytes(scene.read_bytes())
        (root / "Annotations" / f"{stem}.xml").write_text(_annotation(scene, settings))
    (root / "ImageSets/Main/train.txt").write_text("\n".join(stems[:images]) + "\n")
    (root / "ImageSets/Main/val.txt").write_text("\n".join(stems[images:]) + "\n")


def _annotation(scene: Scene, settings: SceneSettings) -> str:
    annotation = Element("annotation")
    size = SubElement(annotation, "size")
    for name, value in (("width", settings.width), ("height", settings.height), ("depth", 3)):
        SubElement(size, name).text = str(value)
    for xyxy, label in zip(scene.boxes.xyxy, scene.boxes.labels, strict=True):
        item = SubElement(annotation, "object")
        SubElement(item, "name").text = NAMES[label]
        box = SubElement(item, "bndbox")
        for name, value in zip(("xmin", "ymin", "xmax", "ymax"), xyxy, strict=True):
            SubElement(box, name).text = str(round(float(value) + (name in ("xmin", "ymin"))))
    return tostring(annotation, encoding="unicode")
