"""A model at rest: a folder with `model.cfg`, `model.weights` and `bundle.json`, one unit.

cfg and weights are Darknet's own formats; a quantised network has `quantization.safetensors` beside them. The record
holds the class names, the input size, the hash of every file, the bundle it came from and the stage that made it. A
bundle whose hashes do not match is refused; nothing in it is ever unpickled.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, Protocol

from pydantic import BaseModel, ConfigDict, ValidationError
from upath import UPath

from yolo_dist.compress.quantization import QuantizedNetwork
from yolo_dist.compress.quantization.record import load_quantization, save_quantization
from yolo_dist.config import STRIDE_LIMIT, ImageSize
from yolo_dist.darknet.cfg import Cfg, Yolo, format_cfg, parse_cfg, read_cfg
from yolo_dist.darknet.network import Network
from yolo_dist.darknet.weights import load_weights, save_weights
from yolo_dist.errors import BundleCorrupt, CfgError, ConfigError, ModelError, QuantizationError
from yolo_dist.object_store import persistently
from yolo_dist.storage import Url, local_copy, location, publish_folder, sha256

CFG_FILE, WEIGHTS_FILE, RECORD_FILE = "model.cfg", "model.weights", "bundle.json"
QUANTIZATION_FILE = "quantization.safetensors"
"""Ranges and scales of a quantised network."""


class BundleRecord(BaseModel):
    """Contents of `bundle.json`.

    Attributes:
        format: version of this layout.
        classes: class names in the order of the network's class scores.
        image_size: (width, height) of the network's input.
        sha256: file name → hex digest.
        parent: fingerprint of the bundle that the stage started from.
        stage: id, kind and configuration of the stage that made it.
        metrics: what the stage measured.
        lineage: layer → the layer it was in the first bundle of the chain, before any layer was removed; null for
            one that removal added. Absent while nothing was removed.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal[1] = 1
    classes: tuple[str, ...]
    image_size: ImageSize
    sha256: dict[str, str]
    parent: str | None = None
    stage: dict[str, Any] | None = None
    metrics: dict[str, Any] | None = None
    lineage: tuple[int | None, ...] | None = None


@dataclass(frozen=True)
class Bundle:
    """A network with what is needed to use it: class names and input size.

    Attributes:
        network: the network, weights loaded.
        classes: class names in the order of its class scores.
        image_size: (width, height) of its input in pixels.
        parent: fingerprint of the bundle it came from.
        stage: id, kind and configuration of the stage that made it.
        metrics: what that stage measured.
        lineage: for each layer the one it was before any was removed, see `BundleRecord`; None if none was.
        fingerprint: hash of its record; empty while it was never saved.
    """

    network: Network
    classes: tuple[str, ...]
    image_size: tuple[int, int]
    parent: str | None = None
    stage: dict[str, Any] | None = None
    metrics: dict[str, Any] | None = None
    lineage: tuple[int | None, ...] | None = None
    fingerprint: str = field(default="", compare=False)

    def followed_by(self, network: Network, lineage: Sequence[int | None] | None = None) -> "Bundle":
        """The bundle that a stage made from this one.

        Args:
            network: what came out.
            lineage: for each of its layers the one of this bundle's that it was; by default the one in its place.
        """
        origins = self.lineage or tuple(range(len(self.network.layers)))
        composed = self.lineage if lineage is None else tuple(None if i is None else origins[i] for i in lineage)
        unchanged = composed == tuple(range(len(network.layers)))
        return Bundle(
            network,
            self.classes,
            self.image_size,
            parent=self.fingerprint,
            lineage=None if unchanged else composed,
        )

    def write(self, folder: Path) -> "Bundle":
        """Write the bundle's files into an existing local folder; the saved bundle has its fingerprint."""
        (folder / CFG_FILE).write_text(format_cfg(self.network.cfg.with_size(self.image_size)))
        save_weights(self.network, folder / WEIGHTS_FILE)
        names = [CFG_FILE, WEIGHTS_FILE]
        if isinstance(self.network, QuantizedNetwork):
            save_quantization(self.network, folder / QUANTIZATION_FILE)
            names.append(QUANTIZATION_FILE)
        record = BundleRecord(
            classes=self.classes,
            image_size=self.image_size,
            sha256={name: sha256(UPath(folder / name)) for name in names},
            parent=self.parent,
            stage=self.stage,
            metrics=self.metrics,
            lineage=self.lineage,
        )
        content = record.model_dump_json(indent=2).encode()
        (folder / RECORD_FILE).write_bytes(content)
        return replace(self, fingerprint=_fingerprint(content))

    def save(self, url: Url) -> "Bundle":
        """Write the bundle to a path or URL, completely or not at all."""
        with publish_folder(location(url), last=RECORD_FILE) as folder:
            return self.write(folder)


def read_record(url: Url) -> tuple[BundleRecord, str]:
    """A bundle's record and its fingerprint, without loading the model.

    Raises:
        BundleCorrupt: there is no record, or it is not one.
        StorageError: its store cannot be reached.
    """
    path = location(url) / RECORD_FILE
    try:
        content = persistently(path, path.read_bytes)
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
        exported = str(url).endswith(".onnx")
        remedy = "; evaluate takes an exported file with --runtime onnxruntime" if exported else ""
        raise BundleCorrupt(f"{url}: no {RECORD_FILE} there; give the folder of a bundle{remedy}") from None
    try:
        return BundleRecord.model_validate_json(content), _fingerprint(content)
    except ValidationError as error:
        problem = error.errors()[0]
        place = "".join(f"{part}: " for part in problem["loc"])
        raise BundleCorrupt(f"{path}: {place}{problem['msg']}; copy the whole bundle again") from None


def open_bundle(url: Url) -> Bundle:
    """Load a bundle from a path or URL.

    Raises:
        BundleCorrupt: a file is missing or does not match its hash, or the record names other classes than the network
            has; names the file.
    """
    record, fingerprint = read_record(url)
    with local_copy(location(url)) as folder:
        quantized = QUANTIZATION_FILE in record.sha256
        for name in (CFG_FILE, WEIGHTS_FILE, *[QUANTIZATION_FILE] * quantized):
            _check(folder, name, record.sha256.get(name, "none"), str(url))
        network = Network(parse_cfg((folder / CFG_FILE).read_text(), f"{url}/{CFG_FILE}"))
        if (heads := _head_classes(network.cfg)) != {len(record.classes)}:
            raise BundleCorrupt(
                f"{url}: {RECORD_FILE} names {len(record.classes)} classes, the heads of {CFG_FILE} have "
                f"{' and '.join(map(str, sorted(heads))) or 'none'}; copy the whole bundle again"
            )
        load_weights(network, folder / WEIGHTS_FILE)
        if quantized:
            network = _quantized(network, folder / QUANTIZATION_FILE, str(url))
    return Bundle(
        network,
        record.classes,
        record.image_size,
        record.parent,
        record.stage,
        record.metrics,
        record.lineage,
        fingerprint,
    )


def open_darknet(
    cfg: Url, weights: Url | None, classes: tuple[str, ...], image_size: tuple[int, int] | None = None
) -> Bundle:
    """A bundle from a Darknet pair that lies anywhere.

    Args:
        cfg: of any detector.
        weights: that belong to it; without them the network is not initialised.
        classes: names in the order of its class scores.
        image_size: (width, height) of the input in pixels; the cfg's by default.

    Raises:
        CfgError, WeightsMismatch: what is wrong with the files.
        ModelError: the cfg has no heads, or its classes are not as many as the names given.
    """
    description = read_cfg(str(cfg))
    heads = _head_classes(description)
    if not heads:
        raise ModelError(f"{cfg}: has no [yolo] layer, so it is no detector; give the cfg of one")
    if heads != {len(classes)}:
        raise ModelError(
            f"{cfg}: its heads have {' and '.join(map(str, sorted(heads)))} classes, the dataset has {len(classes)}; "
            "name the dataset it was made for, or build a network for yours from the zoo"
        )
    network = Network(description)
    if weights is not None:
        load_weights(network, str(weights))
    return Bundle(network, classes, image_size or _net_size(description, str(cfg)))


def numbered_classes(cfg: Url) -> tuple[str, ...]:
    """Numbers for the classes of a Darknet cfg, which has no names for them.

    Raises:
        CfgError: the cfg cannot be read.
    """
    return tuple(str(number) for number in range(max(_head_classes(read_cfg(str(cfg))), default=0)))


class Named(Protocol):
    """A model that says what its classes are called."""

    @property
    def classes(self) -> tuple[str, ...]:
        """In the order of its class scores."""


def require_classes(model: Named, classes: tuple[str, ...], source: str) -> None:
    """Refuse a dataset whose classes are not the model's, by name and order.

    Raises:
        ConfigError: both lists differ.
    """
    if model.classes == classes:
        return
    raise ConfigError(
        source,
        [
            f"its classes are {', '.join(classes)}, the model's are {', '.join(model.classes)}; "
            "take the model made for this dataset, or convert with the model's card"
        ],
    )


def _quantized(network: Network, path: Path, url: str) -> QuantizedNetwork:
    try:
        return load_quantization(network, path, f"{url}/{QUANTIZATION_FILE}")
    except QuantizationError as error:
        raise BundleCorrupt(f"{error}; copy the whole bundle again") from None


def _net_size(cfg: Cfg, source: str) -> tuple[int, int]:
    size = (cfg.net.width, cfg.net.height)
    if any(side % STRIDE_LIMIT for side in size):
        raise CfgError(
            f"{source}: [net] has width={size[0]}, height={size[1]}, which are no multiples of {STRIDE_LIMIT}; "
            "change them, or give --image-size"
        )
    return size


def _head_classes(cfg: Cfg) -> set[int]:
    return {layer.classes for layer in cfg.layers if isinstance(layer, Yolo)}


def _fingerprint(record: bytes) -> str:
    return hashlib.sha256(json.dumps(json.loads(record), sort_keys=True).encode()).hexdigest()


def _check(folder: Path, name: str, expected: str, url: str) -> None:
    path = folder / name
    if not path.is_file():
        raise BundleCorrupt(f"{url}: {name} is missing; copy the whole bundle again")
    actual = sha256(UPath(path))
    if actual != expected:
        raise BundleCorrupt(
            f"{url}: {name} does not match {RECORD_FILE} (sha256 {actual[:12]}…, not {expected[:12]}…); "
            "copy the whole bundle again"
        )
