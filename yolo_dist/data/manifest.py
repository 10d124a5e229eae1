"""The record of a converted split: what its shards hold, their hashes, and what was left out."""

import hashlib
import json
from typing import Annotated, Literal

from annotated_types import Ge, Le
from pydantic import Field
from upath import UPath

from yolo_dist.config import Config, validate
from yolo_dist.errors import DataError
from yolo_dist.object_store import persistently

MANIFEST = "manifest.json"
MOST = 1 << 40
"""Images or bytes of a shard that a manifest may speak of."""


class ShardRecord(Config):
    """One shard in the manifest."""

    file: str = Field(pattern=r"^\w[\w.-]{0,200}$")
    """Name beside the manifest."""
    rows: Annotated[int, Ge(0), Le(MOST)]
    """Images in it."""
    bytes: Annotated[int, Ge(0), Le(MOST)]
    """Size of the file."""
    sha256: str
    """Hex digest of the file."""


class Manifest(Config):
    """What a converted split holds and what was left out of it."""

    version: Literal[1] = 1
    """Of this layout."""
    dataset: str
    """Name of the card."""
    split: str
    """Name of the split."""
    classes: tuple[str, ...]
    """Class names; labels are positions in this list."""
    images: int
    """Images in all shards."""
    boxes: dict[str, int]
    """Boxes per class, ignored ones not counted."""
    ignored: int
    """Boxes that metrics and losses skip: crowds, difficult objects, ignored regions."""
    rejected: dict[str, int]
    """How many boxes and images were left out, by reason."""
    turned: int = 0
    """Images that were kept as stored, although EXIF asks for a turn and nothing tells which way their boxes count."""
    examples: dict[str, tuple[str, ...]]
    """The first few of each reason: file, place, what was found."""
    shards: tuple[ShardRecord, ...]
    """The files, in order."""

    @property
    def fingerprint(self) -> str:
        """Hex sha256 of the content: equal for two conversions exactly if all their bytes are."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()

    def first(self, images: int) -> "Manifest":
        """The manifest as if the split ended after some images: shards end earlier, what was counted stays."""
        left, shards = images, []
        for shard in self.shards:
            rows = min(shard.rows, left)
            if rows == 0:
                break
            shards.append(shard.model_copy(update={"rows": rows}))
            left -= rows
        return self.model_copy(update={"images": images - left, "shards": tuple(shards)})

    def to_json(self) -> str:
        """The file's text."""
        values = self.model_dump(mode="json", exclude=None if self.turned else {"turned"})
        return json.dumps(values, indent=2, ensure_ascii=False) + "\n"


def read_manifest(folder: UPath) -> Manifest:
    """The manifest of a split's folder.

    Raises:
        DataError: there is none, or it is damaged.
        ConfigError: its keys are not those of a manifest.
    """
    path = folder / MANIFEST
    try:
        values = json.loads(persistently(path, lambda: path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        raise DataError(f"{path}: no finished conversion is here; run yolo-dist convert") from None
    except ValueError as error:
        raise DataError(f"{path}: damaged manifest: {error}; convert the split again") from None
    if not isinstance(values, dict):
        raise DataError(f"{path}: damaged manifest: not an object; convert the split again")
    return validate(Manifest, values, str(path))
