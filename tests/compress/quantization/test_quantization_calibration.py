"""Calibration: the ranges of activations, seen while they are not quantised."""

import weakref
from collections.abc import Iterator, Sequence

import pytest
import torch
from calibrated import bytes_of, signal_to_noise
from small_networks import conv, head, random_images, random_network
from torch import Tensor

from yolo_dist.compress.quantization import QuantizationConfig, calibrate, quantize
from yolo_dist.compress.quantization.ranges import RangeMeasure
from yolo_dist.darknet.cfg import Dropout
from yolo_dist.darknet.network import Network
from yolo_dist.errors import NonFiniteOutput, NotCalibrated

MEASURES: list[RangeMeasure] = ["minmax", "moving-average", "percentile", "mse"]
every_measure = pytest.mark.parametrize("measure", MEASURES)
IMAGES = bytes_of(random_images(6, (64, 64)))


def network() -> Network:
    return random_network(conv(8, 3, 2), conv(8, 3, activation="relu"), *head())


def ranges(
    batches: Sequence[Tensor], measure: RangeMeasure = "minmax", bits: int = 4
) -> dict[str, tuple[float, float]]:
    quantized = quantize(network(), QuantizationConfig(activation_bits=bits, weight_bits=16))
    calibrate(quantized, batches, measure)
    return {name: (float(one.low), float(one.high)) for name, one in quantized.quantizers()}


def test_minmax_spans_what_the_float_network_computes() -> None:
    """But for its weights, which have 16 bits here; four bits of activations do not disturb what later layers see."""
    with torch.no_grad():
        _, features = network().forward_features(IMAGES, (0, 1))
    found = ranges([IMAGES])
    assert sorted(found) == ["layers.0.before", "layers.0.output", "layers.1.output"]
    for index in (0, 1):
        ends = (min(float(features[index].min()), 0), float(features[index].max()))
        assert found[f"layers.{index}.output"] == pytest.approx(ends, rel=1e-2, abs=1e-3)


@pytest.mark.parametrize("split", [1, 2, 6])
def test_images_one_by_one_or_in_batches_give_one_minmax(split: int) -> None:
    together = ranges([IMAGES])
    for name, ends in ranges(list(IMAGES.split(split))).items():
        assert ends == pytest.approx(together[name], rel=1e-5), name


def test_a_moving_average_follows_the_batches() -> None:
    first, later = IMAGES[:2], IMAGES[2:]
    one, other = ranges([first], "moving-average"), ranges([later], "moving-average")
    for name, (low, high) in ranges([first, later], "moving-average").items():
        assert low == pytest.approx(0.9 * one[name][0] + 0.1 * other[name][0], rel=1e-5)
        assert high == pytest.approx(0.9 * one[name][1] + 0.1 * other[name][1], rel=1e-5)


@pytest.mark.parametrize("measure", ["percentile", "mse"])
def test_other_measures_narrow_what_minmax_spans(measure: RangeMeasure) -> None:
    whole, narrow = ranges([IMAGES]), ranges([IMAGES], measure)
    for name, (low, high) in narrow.items():
        assert whole[name][0] <= low
        assert high <= whole[name][1]
    assert any(narrow[name] != whole[name] for name in narrow)


@every_measure
def test_batches_may_be_made_as_they_are_needed(measure: RangeMeasure) -> None:
    quantized = quantize(network(), QuantizationConfig())
    calibrate(quantized, (images for images in IMAGES.split(3)), measure)
    assert all(quantizer.calibrated for _, quantizer in quantized.quantizers())


@every_measure
def test_eight_bits_are_close_to_the_float_network(measure: RangeMeasure) -> None:
    plain = network()
    quantized = quantize(plain, QuantizationConfig(symmetric="weights", per_channel=True))
    calibrate(quantized, [IMAGES], measure)
    with torch.no_grad():
        assert signal_to_noise(plain(IMAGES)[0], quantized(IMAGES)[0]) > 25


def test_the_mode_of_every_module_and_all_statistics_stay() -> None:
    plain = random_network(conv(8, 3), Dropout(probability=0.5), conv(4), *head()).train()
    plain.layers[2].eval()
    quantized = quantize(plain, QuantizationConfig())
    modes = [module.training for module in quantized.modules()]
    before = {name: value.clone() for name, value in quantized.state_dict().items() if "norm" in name}
    calibrate(quantized, [IMAGES], "minmax")
    assert [module.training for module in quantized.modules()] == modes
    assert all(torch.equal(quantized.state_dict()[name], value) for name, value in before.items())


def test_calibrating_again_forgets_the_ranges_before() -> None:
    quantized = quantize(network(), QuantizationConfig(activation_bits=4, weight_bits=16))
    calibrate(quantized, [torch.ones_like(IMAGES)], "minmax")
    calibrate(quantized, [IMAGES], "minmax")
    assert {name: (float(one.low), float(one.high)) for name, one in quantized.quantizers()} == ranges([IMAGES])


def test_one_look_at_the_images_keeps_none_of_them() -> None:
    """A thousand images need the memory of one batch; a weak reference tells whether the one before is still there."""
    seen: list[weakref.ref[torch.Tensor]] = []
    alive: list[int] = []

    def batches() -> Iterator[torch.Tensor]:
        for number in range(5):
            alive.append(sum(reference() is not None for reference in seen))
            batch = torch.full_like(IMAGES, number / 5)
            seen.append(weakref.ref(batch))
            yield batch

    calibrate(quantize(network(), QuantizationConfig()), batches(), "minmax")
    assert max(alive) <= 1


def test_no_image_is_an_error_that_names_the_setting() -> None:
    with pytest.raises(NotCalibrated, match="there are none; set calibration_images"):
        ranges([])


@every_measure
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_network_that_computes_no_numbers_is_named_by_layer(measure: RangeMeasure, value: float) -> None:
    quantized = quantize(network(), QuantizationConfig())
    with torch.no_grad():
        quantized.get_parameter("layers.1.norm.bias")[0] = value
    with pytest.raises(NonFiniteOutput, match=r"^layers\.1\.output is not finite"):
        calibrate(quantized, [IMAGES], measure)
    assert all(quantizer.active and quantizer.watch is None for _, quantizer in quantized.quantizers())
