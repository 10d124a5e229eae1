"""Shards: what is written is read back, and nothing damaged is trusted."""

import hashlib
import json
import pickle
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_datasets import good_yolo_dataset, raw_shards, yolo_card
from upath import UPath

from yolo_dist.data.annotations import Boxes
from yolo_dist.data.conversion.convert import ConvertConfig, convert
from yolo_dist.data.manifest import MANIFEST
from yolo_dist.data.shards import Sample, ShardSet, converted_splits, open_split
from yolo_dist.errors import ConfigError, DataError, ShardCorrupt

SMALL = ConvertConfig(shard_bytes=4000)


@pytest.fixture
def converted(tmp_path: Path) -> Path:
    convert(yolo_card(), good_yolo_dataset(tmp_path / "source"), tmp_path / "shards", "train", SMALL)
    return tmp_path / "shards"


def flip_byte(path: Path, position: int) -> None:
    data = bytearray(path.read_bytes())
    data[position] ^= 0x10
    path.write_bytes(data)


@st.composite
def samples(draw: st.DrawFn) -> Sample:
    count = draw(st.integers(0, 4))
    side = st.floats(0, 1000, width=32)
    xyxy = np.array(draw(st.lists(st.tuples(side, side, side, side), min_size=count, max_size=count)), np.float32)
    labels = np.array(draw(st.lists(st.integers(0, 2), min_size=count, max_size=count)), np.int32)
    ignore = np.array(draw(st.lists(st.booleans(), min_size=count, max_size=count)), np.bool_)
    return Sample(
        image_id=draw(st.text(max_size=8).filter(lambda text: text.isprintable())),
        image=draw(st.binary(max_size=50)),
        width=draw(st.integers(1, 5000)),
        height=draw(st.integers(1, 5000)),
        boxes=Boxes(xyxy.reshape(-1, 4), labels, ignore),
    )


@settings(deadline=None, max_examples=50)
@given(st.lists(samples(), min_size=1, max_size=5))
def test_samples_come_back_as_they_were_written(
    tmp_path_factory: pytest.TempPathFactory, written: list[Sample]
) -> None:
    read = raw_shards(tmp_path_factory.mktemp("shard"), written)
    assert len(read) == len(written)
    for before, after in zip(written, read, strict=True):
        assert bytes(after.image) == before.image
        assert (after.image_id, after.width, after.height) == (before.image_id, before.width, before.height)
        np.testing.assert_array_equal(after.boxes.xyxy, before.boxes.xyxy)
        np.testing.assert_array_equal(after.boxes.labels, before.boxes.labels)
        np.testing.assert_array_equal(after.boxes.ignore, before.boxes.ignore)
        assert after.boxes.xyxy.dtype == np.float32
        assert after.boxes.labels.dtype == np.int32
        assert after.boxes.ignore.dtype == np.bool_


def test_a_shard_set_is_a_sequence_over_all_its_files(converted: Path) -> None:
    shards = open_split(converted, "train")
    assert len(shards.manifest.shards) > 5
    assert [sample.image_id for sample in shards] == [f"{number:03d}" for number in range(40)]
    assert shards[-1].image_id == "039"
    assert [sample.image_id for sample in shards[3:9:2]] == ["003", "005", "007"]
    assert shards.classes == ("cat", "dog")
    for outside in (40, -41):
        with pytest.raises(IndexError):
            shards[outside]


def test_it_travels_to_other_processes_as_its_address(converted: Path) -> None:
    shards = open_split(converted, "train")
    data = pickle.dumps(shards)
    assert len(data) < 1000
    assert [sample.image_id for sample in pickle.loads(data)] == [sample.image_id for sample in shards]


def test_threads_may_read_it_at_once(converted: Path) -> None:
    shards = open_split(converted, "train")
    with ThreadPoolExecutor(8) as pool:
        read = list(pool.map(lambda number: shards[number % 40].image_id, range(400)))
    assert read == [f"{number % 40:03d}" for number in range(400)]


def test_fingerprints_are_equal_exactly_if_the_content_is(converted: Path, tmp_path: Path) -> None:
    same = convert(yolo_card(), tmp_path / "source", tmp_path / "again", "train", SMALL)
    assert same.fingerprint == open_split(converted, "train").fingerprint
    (tmp_path / "source" / "labels" / "003.txt").write_text("0 0.5 0.5 0.5 0.51")
    other = convert(yolo_card(), tmp_path / "source", tmp_path / "other", "train", SMALL)
    assert other.fingerprint != same.fingerprint


def test_verify_is_content_with_what_convert_wrote(converted: Path) -> None:
    open_split(converted, "train").verify()


@pytest.mark.parametrize("position", [0, 700, -3], ids=["first byte", "in an image", "in the footer"])
def test_a_flipped_byte_is_found_by_verify_and_named(converted: Path, position: int) -> None:
    shards = open_split(converted, "train")
    record = shards.manifest.shards[2]
    flip_byte(converted / "train" / record.file, position)
    with pytest.raises(ShardCorrupt, match=rf"shard-00002\.arrow: sha256 is .*, the manifest says {record.sha256}"):
        shards.verify()


@pytest.mark.parametrize("position", [0, 700, 1345, -3], ids=["first byte", "in an image", "beyond", "in the footer"])
def test_a_flipped_byte_is_found_at_the_first_read_and_named(converted: Path, position: int) -> None:
    flip_byte(converted / "train" / "shard-00000.arrow", position)
    with pytest.raises(ShardCorrupt, match=r"shard-00000\.arrow: sha256 is"):
        open_split(converted, "train")[0]


@pytest.mark.parametrize("keep", [0, 100, -1], ids=["empty", "cut in its header", "last byte missing"])
def test_a_cut_shard_is_noticed_at_the_first_read(converted: Path, keep: int) -> None:
    path = converted / "train" / "shard-00001.arrow"
    path.write_bytes(path.read_bytes()[:keep])
    shards = open_split(converted, "train")
    first = shards.manifest.shards[0].rows
    assert shards[first - 1].image_id
    with pytest.raises(ShardCorrupt, match=r"shard-00001\.arrow"):
        shards[first]


def with_labels(labels: list[int], boxes: int) -> Boxes:
    return Boxes(np.zeros((boxes, 4), np.float32), np.array(labels, np.int32), np.zeros(len(labels), np.bool_))


@pytest.mark.parametrize("labels", [[3], [-2]])
def test_a_shard_with_labels_of_no_class_is_refused(labels: list[int], tmp_path: Path) -> None:
    sample = Sample("one", b"bytes", 3, 2, with_labels(labels, 1))
    with pytest.raises(ShardCorrupt, match="not that of a shard"):
        raw_shards(tmp_path, [sample])[0]


def test_a_shard_of_other_rows_than_its_manifest_says_is_refused(tmp_path: Path) -> None:
    shards = raw_shards(tmp_path, [Sample("one", b"bytes", 3, 2, with_labels([0], 1))])
    record = shards.manifest.shards[0].model_copy(update={"rows": 2})
    with pytest.raises(ShardCorrupt, match="not that of a shard"):
        ShardSet(UPath(tmp_path), shards.manifest.model_copy(update={"shards": (record,)}))[0]


def test_a_shard_whose_offsets_lead_out_of_it_is_refused(tmp_path: Path) -> None:
    shards = raw_shards(tmp_path, [Sample("one", bytes(12_345), 3, 2, with_labels([0], 1))])
    record = shards.manifest.shards[0]
    path = tmp_path / record.file
    data = bytearray(path.read_bytes())
    place = data.rindex(np.array([0, 12_345], np.int32).tobytes())
    data[place + 4 : place + 8] = np.int32(1 << 30).tobytes()
    path.write_bytes(data)
    record = record.model_copy(update={"sha256": hashlib.sha256(data).hexdigest()})
    with pytest.raises(ShardCorrupt, match="not that of a shard"):
        ShardSet(UPath(tmp_path), shards.manifest.model_copy(update={"shards": (record,)}))[0]


@pytest.mark.parametrize("name", ["../shard.arrow", "/etc/passwd", "a/b.arrow", "..", "x" * 300, ""])
def test_a_manifest_names_files_beside_it_and_no_others(converted: Path, name: str) -> None:
    path = converted / "train" / MANIFEST
    values = json.loads(path.read_text())
    values["shards"][0]["file"] = name
    path.write_text(json.dumps(values))
    with pytest.raises(ConfigError, match="file"):
        open_split(converted, "train")


def test_a_missing_shard_is_named(converted: Path) -> None:
    (converted / "train" / "shard-00001.arrow").unlink()
    shards = open_split(converted, "train")
    with pytest.raises(ShardCorrupt, match=r"shard-00001\.arrow: sha256 is missing"):
        shards[
            len(shards) // 2 if shards.manifest.shards[0].rows > len(shards) // 2 else shards.manifest.shards[0].rows
        ]


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        ("{", DataError, "damaged manifest"),
        ("[]", DataError, "damaged manifest: not an object"),
        ("{}", ConfigError, "dataset: required key is missing"),
    ],
)
def test_a_damaged_manifest_is_named(converted: Path, text: str, error: type[Exception], message: str) -> None:
    (converted / "train" / MANIFEST).write_text(text)
    with pytest.raises(error, match=rf"manifest\.json: .*{message}"):
        open_split(converted, "train")


def test_a_manifest_of_another_version_is_refused(converted: Path) -> None:
    path = converted / "train" / MANIFEST
    path.write_text(json.dumps(json.loads(path.read_text()) | {"version": 2}))
    with pytest.raises(ConfigError, match="version"):
        open_split(converted, "train")


def test_a_split_that_is_not_there_is_refused_with_those_that_are(converted: Path) -> None:
    shutil.copytree(converted / "train", converted / ".train.unfinished.old")  # of a process that was killed
    assert converted_splits(converted) == ["train"]
    with pytest.raises(DataError, match="split 'val' is not converted, it holds train"):
        open_split(converted, "val")
    with pytest.raises(DataError, match="holds no converted split; run yolo-dist convert"):
        open_split(converted / "nowhere", "val")


def test_shards_of_an_object_store_are_read_and_checked(
    converted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("YOLO_DIST_CACHE", str(tmp_path))
    store = UPath("memory://test-shards-of-an-object-store/train")
    for path in sorted((converted / "train").iterdir()):
        (store / path.name).write_bytes(path.read_bytes())
    local, remote = open_split(converted, "train"), ShardSet.open(store)
    assert [bytes(sample.image) for sample in remote] == [bytes(sample.image) for sample in local]
    data = bytearray((store / "shard-00001.arrow").read_bytes())
    data[500] ^= 1
    (store / "shard-00001.arrow").write_bytes(bytes(data))
    assert len(list(ShardSet.open(store))) == len(local)
    monkeypatch.setenv("YOLO_DIST_CACHE", str(tmp_path / "another"))
    with pytest.raises(ShardCorrupt, match=r"memory://.*shard-00001\.arrow"):
        list(ShardSet.open(store))


def test_box_sizes_leave_ignored_boxes_out(tmp_path: Path) -> None:
    xyxy = np.array([[0, 0, 4, 5], [0, 0, 9, 9], [1, 1, 3, 2]], np.float32)
    boxes = Boxes(xyxy, np.zeros(3, np.int32), np.array([False, True, False]))
    shards = raw_shards(tmp_path, [Sample("a", b"", 9, 9, Boxes()), Sample("b", b"", 9, 9, boxes)])
    numbers, sizes = shards.box_sizes()
    assert numbers.tolist() == [1, 1]
    assert sizes.tolist() == [[4, 5], [2, 1]]


def test_the_first_images_are_a_set_of_their_own(converted: Path) -> None:
    shards = open_split(converted, "train")
    few = shards.first(7)
    assert 1 < len(few.manifest.shards) < len(shards.manifest.shards)
    assert [sample.image_id for sample in few] == [sample.image_id for sample in shards][:7]
    assert few.starts[-1] == few.manifest.images == 7
    assert shards.first(40) is shards
    assert few.first(9) is few
    assert few.first(2).fingerprint == shards.first(2).fingerprint != few.fingerprint != shards.fingerprint
    assert len(shards.first(0)) == 0
    with pytest.raises(IndexError, match="image 7 of 7"):
        few[7]


def test_the_first_images_travel_as_such(converted: Path) -> None:
    few = open_split(converted, "train").first(7)
    data = pickle.dumps(few)
    assert len(data) < 1000
    assert [sample.image_id for sample in pickle.loads(data)] == [sample.image_id for sample in few]
