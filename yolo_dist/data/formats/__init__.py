"""Annotation formats: every module of this folder registers one; a new format is one more file."""

import importlib
import pkgutil

from yolo_dist.data.formats.registry import AnnotatedImage, annotation_format, reader

for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")

__all__ = ["AnnotatedImage", "annotation_format", "reader"]
