"""What docs/datasets.md promises works as written there."""

import re
from pathlib import Path

import pytest
from made_datasets import jpeg

from yolo_dist.data.card import card_names, find_card
from yolo_dist.data.conversion.convert import convert
from yolo_dist.data.conversion.index import present_splits
from yolo_dist.data.shards import open_split

GUIDE = (Path(__file__).parents[2] / "docs" / "datasets.md").read_text(encoding="utf-8")


def test_the_example_card_converts_the_dataset_it_describes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (example,) = re.findall(r"```yaml\n(name: pets\n.*?)```", GUIDE, re.DOTALL)
    monkeypatch.chdir(tmp_path)
    Path("pets.yaml").write_text(example)
    for split, count in (("train", 3), ("val", 2)):
        for number in range(count):
            for folder, suffix, content in (
                ("images", "jpg", jpeg(seed=number)),
                ("labels", "txt", b"1 0.5 0.5 0.2 0.2"),
            ):
                path = Path("pets", folder, split, f"{number}.{suffix}")
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content)
    card = find_card("pets.yaml")
    assert present_splits(card, "pets") == ["train", "val"]
    for split, count in (("train", 3), ("val", 2)):
        manifest = convert(card, "pets", "data/pets", split)
        assert manifest.images == len(open_split("data/pets", split)) == count
        assert manifest.boxes == {"cat": 0, "dog": count}


def test_every_card_is_in_the_guide() -> None:
    assert all(f"`{name}`" in GUIDE for name in card_names())


def test_every_key_of_a_card_is_in_the_guide() -> None:
    keys = type(find_card("shapes")).model_fields
    assert all(f"`{key}`" in GUIDE for key in keys)
