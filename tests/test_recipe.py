"""Recipes: what may stand in one, and that every mistake is reported at once."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from yolo_dist.dataset import Mix
from yolo_dist.errors import ConfigError
from yolo_dist.recipe import PruneStage, Recipe, TrainStage, make_recipe, read_recipe
from yolo_dist.shipped import shipped_folder

RECIPE = """
name: hand-tiny
dataset: hand
shards: data/hand
model: yolov3-tiny
stages:
  - {id: base, kind: train, epochs: 60, augment: &augment {mosaic: 0.5}}
  - {id: sparse, kind: train, epochs: 30, augment: *augment, sparsity: {scope: normal, factor: 1.0e-3}}
  - {id: pruned, kind: prune, method: normal, percent: 0.6}
  - {id: tuned, kind: train, epochs: 20}
"""


def recipe(*overrides: str, **changes: Any) -> Recipe:
    return make_recipe(yaml.safe_load(RECIPE) | changes, "hand.yaml", list(overrides))


def problems_of(*overrides: str, **changes: Any) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        recipe(*overrides, **changes)
    assert caught.value.source == "hand.yaml"
    return caught.value.problems


def stages(*changes: dict[str, Any]) -> list[dict[str, Any]]:
    return [{"id": f"stage{number}", "kind": "train"} | change for number, change in enumerate(changes)]


def train_stage(found: Recipe, number: int) -> TrainStage:
    stage = found.stages[number]
    assert isinstance(stage, TrainStage)
    return stage


def test_a_float_stage_beside_a_quantised_one_may_be_pruned() -> None:
    pruned: dict[str, Any] = {"kind": "prune", "from": "stage0"}
    assert len(recipe(stages=stages({}, {"quantization": {}}, pruned, {"kind": "quantize"}, {})).stages) == 5


def test_a_recipe_says_which_stages_there_are() -> None:
    found = recipe()
    kinds: dict[str, type] = {"base": TrainStage, "sparse": TrainStage, "pruned": PruneStage, "tuned": TrainStage}
    assert {stage.id: type(stage) for stage in found.stages} == kinds
    assert [stage.id for stage in found.stages] == list(kinds)
    sparsity = train_stage(found, 1).sparsity
    assert sparsity is not None
    assert sparsity.factor == 0.001
    assert found.image_size == (416, 416)


def test_a_stage_starts_from_the_one_before_unless_it_names_another() -> None:
    found = recipe(stages=stages({}, {}, {"from": "stage0"}))
    assert [found.start_of(stage) for stage in found.stages] == [None, "stage0", "stage0"]


def test_the_settings_of_a_stage_are_what_it_does_not_where_it_stands() -> None:
    first, second = recipe(stages=stages({"epochs": 3}, {"epochs": 3, "from": "stage0"})).stages
    assert first.settings() == second.settings()
    assert "id" not in first.settings().model_dump()


@pytest.mark.parametrize("path", sorted(shipped_folder("launch").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_recipe_that_comes_with_the_package_is_valid(path: Path) -> None:
    found = read_recipe(str(path))
    assert found.name == path.stem
    assert make_recipe(yaml.safe_load(found.to_yaml()), "again") == found


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        pytest.param({"epochs": 3}, "epochs: unknown key", id="unknown key"),
        pytest.param({"name": "../up"}, "name: String should match", id="a name that is a path"),
        pytest.param({"name": None}, "name: Input should be a valid string", id="no name"),
        pytest.param({"image_size": 100}, "image_size: width and height must be positive multiples of 32", id="size"),
        pytest.param({"stages": []}, "stages: a recipe needs at least one stage", id="no stages"),
        pytest.param({"stages": 5}, "stages: Input should be a valid tuple", id="stages that are a number"),
        pytest.param({"stages": [5]}, "stages.0: Input should be", id="a stage that is a number"),
        pytest.param({"stages": [{"id": "a"}]}, "stages.0: 'kind' is missing", id="no kind"),
        pytest.param(
            {"stages": [{"id": "a", "kind": "paint"}]},
            "stages.0: 'kind' is 'paint', not one of 'train', 'prune'",
            id="unknown kind",
        ),
        pytest.param({"stages": [{"kind": "train"}]}, "stages.0.id: required key is missing", id="no id"),
        pytest.param({"stages": stages({"epochs": 0})}, "stages.0.epochs: Input should be greater", id="no epochs"),
        pytest.param({"stages": stages({"percent": 0.5})}, "stages.0.percent: unknown key", id="key of another kind"),
        pytest.param(
            {"stages": stages({"sparsity": {"faktor": 1}})}, "stages.0.sparsity.faktor: unknown key", id="in a block"
        ),
        pytest.param(
            {"stages": stages({"kind": "prune", "percent": 1})}, "stages.0.percent: Input should be less", id="percent"
        ),
        pytest.param(
            {"stages": stages({}, {"id": "stage0"})},
            "stages.1: an earlier stage has the same id (got 'stage0')",
            id="twice",
        ),
        pytest.param(
            {"stages": stages({"from": "stage1"}, {})},
            "stages.0: from names no stage before this one",
            id="from a later one",
        ),
        pytest.param(
            {"stages": stages({"kind": "export"}, {})},
            "stages.1: starts from stage0, an exported file and no bundle; name another stage with from",
            id="from an exported file",
        ),
        pytest.param({"stages": stages({"from": "stage0"})}, "stages.0: from names no stage", id="from itself"),
        pytest.param(
            {"stages": stages({}, {"from": ["stage0"]})},
            "stages.1.from: Input should be a valid string",
            id="from a list",
        ),
        pytest.param(
            {"stages": stages({"id": ["a"]})}, "stages.0.id: Input should be a valid string", id="id as a list"
        ),
        pytest.param(
            {"stages": stages({"kind": "quantize"}, {}, {"kind": "prune"})},
            "stages.2: kind prune needs a float network, and what it starts from is quantised (got 'stage2')",
            id="pruned after quantisation",
        ),
        pytest.param(
            {"stages": stages({"quantization": {}}, {"kind": "quantize"})},
            "stages.1: kind quantize needs a float network",
            id="quantised twice",
        ),
        pytest.param(
            {"stages": stages({"kind": "quantize"}, {"kind": "export"})},
            "stages.1: format onnx is float32, and what it starts from is quantised; take onnx-int8",
            id="integers as float",
        ),
        pytest.param(
            {"stages": stages({}, {"kind": "prune"}, {"kind": "export", "format": "onnx-int8"})},
            "stages.2: format onnx-int8 needs a quantised network, and what it starts from is float",
            id="float as integers",
        ),
        pytest.param(
            {"stages": stages({"kind": "quantize"}, {"quantization": {"weight_bits": 4}})},
            "stages.1: quantization differs from that of what the stage starts from; leave it out",
            id="quantised in two ways",
        ),
        pytest.param(
            {"stages": stages({}, {"distillation": {"teacher": "stage2"}}, {})},
            "stages.1: distillation.teacher is no stage before this one",
            id="teacher that comes later",
        ),
        pytest.param(
            {"stages": stages({}, {"kind": "export"}, {"from": "stage0", "distillation": {"teacher": "stage1"}})},
            "stages.2: distillation.teacher is an exported file and no bundle",
            id="file as teacher",
        ),
        pytest.param({"cluster": {"workers": -1}}, "cluster.workers: give a number from 0, or", id="workers"),
        pytest.param({"tracking": {"wandb": {"mode": "loud"}}}, "tracking.wandb.mode: Input should be", id="tracking"),
        pytest.param({"model": "yolov3-tinny"}, "did you mean yolov3-tiny?", id="model"),
    ],
)
def test_a_mistake_is_one_problem_that_names_its_place(changes: dict[str, Any], problem: str) -> None:
    (found,) = problems_of(**changes)
    assert problem in found
    assert "\n" not in found


MIX = {"mix": {"visdrone": 0.7, "coco2017": 0.3}}
MIX_SHARDS = {"coco2017": "data/coco2017", "visdrone": "data/visdrone"}


def test_a_recipe_may_mix_datasets() -> None:
    found = recipe(dataset=MIX, shards=MIX_SHARDS)
    assert list(found.shards_of.items()) == [("visdrone", "data/visdrone"), ("coco2017", "data/coco2017")]
    assert make_recipe(yaml.safe_load(found.to_yaml()), "again") == found
    assert recipe().shards_of == {"hand": "data/hand"}


def test_weights_of_a_mix_may_have_any_sum() -> None:
    found = recipe("dataset.mix.visdrone=6", dataset={"mix": {"visdrone": 1, "coco2017": 2}}, shards=MIX_SHARDS)
    assert isinstance(found.dataset, Mix)
    assert found.dataset.shares == {"visdrone": 0.75, "coco2017": 0.25}


@pytest.mark.parametrize(
    ("dataset", "shards", "expected"),
    [
        pytest.param(
            MIX, "data/all", ["shards: must be one for each of coco2017, visdrone, as the dataset is"], id="one path"
        ),
        pytest.param("hand", MIX_SHARDS, ["shards: must be one path or URL, as the dataset is"], id="no mix"),
        pytest.param(
            MIX,
            {"visdrone": "data/visdrone", "coco": "data/coco"},
            ["shards: there is none for coco2017 of the mix", "shards: coco is not in the mix"],
            id="other names",
        ),
        pytest.param(
            {"mix": {"visdrone": 1, "coco2017": 0}},
            MIX_SHARDS,
            ["dataset.mix.coco2017: Input should be greater"],
            id="0",
        ),
        pytest.param(
            {"mix": {"visdrone": 1, "coco2017": float("inf")}},
            MIX_SHARDS,
            ["dataset.mix.coco2017: Input should be a finite number"],
            id="infinite",
        ),
        pytest.param(
            {"mix": {"visdrone": 1}}, MIX_SHARDS, ["dataset.mix: Dictionary should have at least 2 items"], id="alone"
        ),
        pytest.param({"mixed": {}}, "data", ["dataset.mix: required", "dataset.mixed: unknown key"], id="misspelt"),
        pytest.param(MIX, {"visdrone": 5, "coco2017": "a"}, ["shards.visdrone: Input should be a valid str"], id="5"),
        pytest.param(
            5, 5, ["dataset: Input should be a valid string", "shards: Input should be a valid"], id="numbers"
        ),
    ],
)
def test_every_mistake_in_a_mix_is_one_problem(dataset: Any, shards: Any, expected: list[str]) -> None:
    found = problems_of(dataset=dataset, shards=shards)
    assert len(found) == len(expected)
    assert all(problem.startswith(start) for problem, start in zip(found, expected, strict=True))


def test_all_mistakes_are_reported_at_once() -> None:
    wrong = stages({"epochs": 0, "foo": 1}, {"id": "stage0"}, {"kind": "paint"}, {"from": "nowhere"})
    problems = problems_of("nonsense", stages=wrong, dataset=5, colour="red", cluster={"workers": -1})
    places = sorted(problem.partition(":")[0] for problem in problems)
    assert places == sorted(
        [
            "nonsense",
            "cluster.workers",
            "colour",
            "dataset",
            "stages.0.epochs",
            "stages.0.foo",
            "stages.1",
            "stages.2",
            "stages.3",
        ]
    )


def test_an_override_reaches_into_the_stage_of_that_id() -> None:
    found = recipe("sparse.sparsity.factor=1e-3", "tuned.epochs=5")
    sparsity = train_stage(found, 1).sparsity
    assert sparsity is not None
    assert sparsity.factor == 0.001
    assert [train_stage(found, number).epochs for number in (0, 1, 3)] == [60, 30, 5]


def test_an_override_reaches_the_stage_whose_id_has_dots() -> None:
    stages = [{"id": id, "kind": "train", "epochs": 1} for id in ("base", "base.1", "base.1.b")]
    found = recipe("base.1.epochs=3", "base.epochs=2", stages=stages)
    assert [train_stage(found, number).epochs for number in range(3)] == [2, 3, 1]


def test_an_override_reaches_the_top_level_and_blocks_that_are_not_there_yet() -> None:
    found = recipe("image_size=[320, 256]", "cluster.workers=3", "tracking.wandb.project=hands", "name=other")
    assert (found.name, found.image_size, found.cluster.workers) == ("other", (320, 256), 3)
    assert found.tracking.wandb is not None
    assert found.tracking.wandb.project == "hands"


def test_the_last_of_several_overrides_of_a_key_counts() -> None:
    assert train_stage(recipe("base.epochs=1", "base.epochs=2"), 0).epochs == 2


def test_an_override_of_one_stage_leaves_another_that_shares_its_block_alone() -> None:
    found = recipe("base.augment.mosaic=1")
    assert [train_stage(found, number).augment.mosaic for number in (0, 1)] == [1.0, 0.5]


def test_overrides_do_not_change_the_values_they_are_given() -> None:
    values = yaml.safe_load(RECIPE)
    make_recipe(values, "hand.yaml", ["base.augment.mosaic=1", "name=other", "cluster.workers=2"])
    assert values == yaml.safe_load(RECIPE)


@pytest.mark.parametrize("text", ["1e-3", "1.0e-3", "0.001", ".001", "1E-03", "'1e-3'"])
def test_numbers_are_numbers_however_yaml_1_1_reads_them(text: str, tmp_path: Path) -> None:
    (tmp_path / "hand.yaml").write_text(RECIPE.replace("1.0e-3", text))
    overridden = recipe(f"sparse.sparsity.factor={text}")
    for found in (overridden, read_recipe(str(tmp_path / "hand.yaml"))):
        sparsity = train_stage(found, 1).sparsity
        assert sparsity is not None
        assert sparsity.factor == 0.001


@pytest.mark.parametrize(
    ("override", "problem"),
    [
        ("epochs", "epochs: an override reads key=value or stage.key=value"),
        ("=5", "=5: an override reads key=value or stage.key=value"),
        ("base.=5", "base.=5: an override reads key=value or stage.key=value"),
        ("base.epochs=[", "base.epochs=[: '[' is not a YAML value"),
        ("stages.0.epochs=5", "stages.0.epochs=5: name a stage by its id, such as base.epochs=3"),
        ("bass.epochs=5", "bass: unknown key"),
        ("base.epoch=5", "stages.0.epoch: unknown key"),
        ("base.epochs=", "stages.0.epochs: Input should be a valid integer (got None)"),
    ],
)
def test_an_override_that_fits_nowhere_is_a_problem(override: str, problem: str) -> None:
    assert problems_of(override) == [problem]


def test_overrides_of_a_recipe_without_proper_stages_do_not_crash() -> None:
    assert [problem.partition(":")[0] for problem in problems_of("base.epochs=5", stages=5)] == ["stages", "base"]


@settings(max_examples=50, deadline=None)
@given(
    epochs=st.integers(1, 1000),
    percent=st.floats(0, 1, exclude_max=True),
    factor=st.floats(1e-9, 1e3) | st.just("auto"),
    scales=st.none() | st.tuples(st.floats(0.1, 1), st.floats(1, 3)),
    model=st.sampled_from(
        [{"zoo": "yolov4", "width": 0.25}, {"cfg": "a.cfg", "weights": "a.weights"}, {"bundle": "x/y"}]
    ),
    size=st.sampled_from([32, [320, 256], "416"]),
    wandb=st.none() | st.fixed_dictionaries({"mode": st.sampled_from(["online", "offline", "disabled"])}),
)
def test_a_recipe_written_out_and_read_again_is_the_same(
    epochs: int, percent: float, factor: Any, scales: Any, model: Any, size: Any, wandb: Any
) -> None:
    first = {"epochs": epochs, "sparsity": {"factor": factor}, "multi_scale": scales}
    second = {"kind": "prune", "percent": percent, "from": "stage0"}
    found = recipe(stages=stages(first, second), model=model, image_size=size, tracking={"wandb": wandb})
    assert make_recipe(yaml.safe_load(found.to_yaml()), "again") == found


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        pytest.param(b"", "must be a mapping of keys to values", id="empty"),
        pytest.param(b"- a\n- b\n", "must be a mapping of keys to values", id="a list"),
        pytest.param(b"name: [\n", "while parsing a flow node", id="no YAML"),
        pytest.param(b"name: \xff\xfe\n", "is not UTF-8 text", id="no text"),
        pytest.param(b"name: !!python/object/apply:os.getcwd []\n", "could not determine a constructor", id="code"),
        pytest.param(b"name: a\nstages:\n- id: b\n  id: c\n", "key id occurs twice .* line 4,", id="a key twice"),
    ],
)
def test_a_file_that_is_no_recipe_is_refused_in_one_line(content: bytes, problem: str, tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=rf"^{path}: {problem}") as caught:
        read_recipe(str(path))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("keys", [("recipe", "space"), ("recipe",), ("space",)])
def test_a_search_space_is_no_recipe(keys: tuple[str, ...], tmp_path: Path) -> None:
    path = tmp_path / "space.yaml"
    path.write_text(yaml.safe_dump({"name": "search", "trials": 3} | dict.fromkeys(keys, "x")))
    with pytest.raises(ConfigError) as caught:
        read_recipe(str(path), ["trials=8"])
    assert caught.value.problems == [f"is a search space, not a recipe; `yolo-dist tune {path}` searches it"]


def test_a_recipe_that_is_not_there_is_named(tmp_path: Path) -> None:
    for path in (tmp_path / "nothing.yaml", tmp_path):
        with pytest.raises(ConfigError, match=rf"^{path}: cannot be read: "):
            read_recipe(str(path))
