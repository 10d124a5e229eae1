"""Sensitivity to bits: one layer at a time, by hand; its record is the one of cuts."""

from dataclasses import replace
from pathlib import Path

import pytest
import tiny
import torch
from small_networks import conv, depthwise, head, random_images, random_network
from upath import UPath

from yolo_dist.compress.pruning.trials import Outcome, TrialSetup
from yolo_dist.compress.quantization import QuantizationConfig, calibrate, quantize
from yolo_dist.compress.quantization.layers import QuantizedConvolution
from yolo_dist.compress.sensitivity import bits
from yolo_dist.compress.sensitivity.bits import BitsConfig, Precision, quantize_layers, try_precision
from yolo_dist.compress.sensitivity.record import Sensitivity, measure
from yolo_dist.config import validate
from yolo_dist.darknet.cfg import Maxpool, Route, Shortcut, SqueezeExcite, Upsample
from yolo_dist.darknet.layers import Convolution
from yolo_dist.data.loader import images_of
from yolo_dist.data.shards import open_split
from yolo_dist.errors import AlreadyQuantized, ConfigError, NotCalibrated
from yolo_dist.evaluate.evaluator import evaluate

CONFIG = BitsConfig(bits=(3, 8), calibration_images=4)


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.write_shards(tmp_path_factory.mktemp("bits"))


@pytest.fixture
def setup(shards: Path) -> TrialSetup:
    return TrialSetup(tiny.make_bundle(4).network, tiny.SIZE, open_split(shards, "val"), open_split(shards, "train"))


@pytest.fixture
def tried(monkeypatch: pytest.MonkeyPatch) -> list[Precision]:
    """The precisions that were tried so far."""
    precisions: list[Precision] = []

    def counting(setup: TrialSetup, precision: Precision) -> Outcome:
        precisions.append(precision)
        return try_precision(setup, precision)

    monkeypatch.setattr(bits, "try_precision", counting)
    return precisions


def measured(setup: TrialSetup, config: BitsConfig, record: Path) -> Sensitivity:
    return measure(setup, config.question(setup.network), UPath(record))


def test_layers_that_only_pass_numbers_on_have_no_curve() -> None:
    network = random_network(
        conv(8, 3, 2),
        depthwise(8, 3),
        SqueezeExcite(filters=8),
        Shortcut(from_layer=-3),
        Maxpool(size=2, stride=2),
        Upsample(stride=2),
        Route(layers=(-1, -4)),
        Route(layers=-1),
        *head(),
    )
    question = CONFIG.question(network)
    assert [curve.layers for curve in question.sets] == [(0,), (1,), (2,), (3,), (6,), (8,)]
    assert [curve.channels for curve in question.sets] == [8, 8, 8, 8, 16, 12]
    assert [trial.amount for trial in question.together.trials] == [8, 3], "the mildest first"


def test_only_the_layers_asked_for_are_quantised() -> None:
    network = random_network(conv(8, 3, 2), conv(8), *head())
    partly = quantize_layers(network, QuantizationConfig(weight_bits=2, activation_bits=2), (1,))
    assert [type(layer) for layer in partly.layers][:3] == [Convolution, QuantizedConvolution, Convolution]
    calibrate(partly, [random_images()], "minmax")
    with torch.no_grad():
        _, before = network.forward_features(random_images(), (0, 1))
        _, after = partly.forward_features(random_images(), (0, 1))
    assert torch.equal(before[0], after[0]), "the image is not rounded either"
    assert after[1].unique().numel() <= 4
    assert before[1].unique().numel() > 1000


def test_all_layers_at_once_is_the_quantised_network() -> None:
    network = random_network(conv(8, 3, 2), conv(8), *head())
    whole = quantize_layers(network, QuantizationConfig(), (0, 1, 2))
    expected = quantize(network, QuantizationConfig())
    for one in (whole, expected):
        calibrate(one, [random_images()], "minmax")
    with torch.no_grad():
        assert torch.equal(whole(random_images())[0], expected(random_images())[0])


def test_every_point_is_a_trial_of_its_own(setup: TrialSetup, tmp_path: Path) -> None:
    found = measured(setup, CONFIG, tmp_path / "s.json")
    network = setup.network
    assert [curve.name for curve in found.sets] == ["0", "1", "3", "4"]
    assert found.unit == "bits"
    by_hand = quantize(network, QuantizationConfig(weight_bits=3, activation_bits=3))
    assert setup.train is not None
    calibrate(by_hand, [images_of(setup.train, tiny.SIZE, 4)], "minmax")
    evaluation = evaluate(by_hand, setup.validation, tiny.SIZE)
    assert evaluation is not None
    last = found.together.trials[-1]
    assert last.amount == last.count == 3
    assert last.outcome is not None
    assert (last.outcome.map, last.outcome.map50) == pytest.approx(
        (evaluation.metrics.map, evaluation.metrics.map50), abs=1e-6
    )
    plain = evaluate(network, setup.validation, tiny.SIZE)
    assert plain is not None
    assert found.unchanged is not None
    assert found.unchanged.map == pytest.approx(plain.metrics.map, abs=1e-6)
    assert Sensitivity.model_validate_json((tmp_path / "s.json").read_text()) == found


def test_what_is_measured_stays_when_bits_are_added_but_not_for_another_scheme(
    setup: TrialSetup, tmp_path: Path, tried: list[Precision]
) -> None:
    record = tmp_path / "s.json"
    measured(setup, CONFIG, record)
    assert len(tried) == 11, "nothing, four layers and all together at two numbers of bits"
    tried.clear()
    measured(setup, BitsConfig(bits=(8, 5, 3), calibration_images=4), record)
    assert {precision.config.weight_bits for precision in tried} == {5}
    assert len(tried) == 5
    tried.clear()
    other = BitsConfig(bits=(8,), calibration_images=4, quantization=QuantizationConfig(scheme="dorefa"))
    measured(setup, other, record)
    assert len(tried) == 6


def test_training_images_are_needed(setup: TrialSetup) -> None:
    precision = Precision((0,), QuantizationConfig(), "minmax", 4)
    with pytest.raises(NotCalibrated):
        try_precision(replace(setup, train=None), precision)


def test_a_quantised_network_is_refused_before_anything_is_measured(setup: TrialSetup, tmp_path: Path) -> None:
    quantized = quantize(setup.network, QuantizationConfig())
    with pytest.raises(AlreadyQuantized):
        measured(replace(setup, network=quantized), CONFIG, tmp_path / "s.json")
    assert not (tmp_path / "s.json").exists()


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        ({"bits": [1]}, "bits.0"),
        ({"bits": []}, "bits"),
        ({"quantization": {"activation_bits": 4}}, "weight_bits and activation_bits are what bits lists"),
    ],
)
def test_wrong_requests_are_refused_by_name(values: dict[str, object], problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        validate(BitsConfig, values, "options")
