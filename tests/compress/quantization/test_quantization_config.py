"""What quantisation may be told, and what it refuses."""

import pytest

from yolo_dist.compress.quantization import QuantizationConfig, QuantizeConfig, QuantizedTrainingConfig
from yolo_dist.compress.quantization.grid import GridRule
from yolo_dist.config import validate
from yolo_dist.errors import ConfigError


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        ({"scheme": "googel"}, "scheme: unknown scheme; there are dorefa, google"),
        ({"weight_bits": 1}, "weight_bits: .*greater than or equal to 2"),
        ({"activation_bits": 17}, "activation_bits: .*less than or equal to 16"),
        ({"bias_bits": 33}, "bias_bits: .*less than or equal to 32"),
        ({"first_bits": "double"}, "first_bits"),
        ({"symmetric": "activations"}, "symmetric"),
        ({"scheme": "dorefa", "symmetric": False}, "scheme dorefa does not use symmetric"),
        ({"bits": 8}, "bits"),
    ],
)
def test_wrong_values_are_refused_by_name(values: dict[str, object], problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        validate(QuantizationConfig, values, "quantization")


@pytest.mark.parametrize(
    ("values", "activations", "sums"),
    [
        ({}, "symmetric", "symmetric"),
        ({"symmetric": False}, "asymmetric", "asymmetric"),
        ({"symmetric": "weights"}, "asymmetric", "asymmetric"),
        ({"scheme": "dorefa"}, "positive", "symmetric"),
    ],
)
def test_the_rules_of_activations_follow(values: dict[str, object], activations: GridRule, sums: GridRule) -> None:
    config = validate(QuantizationConfig, values, "quantization")
    assert (config.activation_rule, config.sum_rule) == (activations, sums)


@pytest.mark.parametrize("config", [QuantizeConfig(weight_bits=4), QuantizedTrainingConfig(weight_bits=4)])
def test_what_stays_true_is_the_same_however_it_came_about(config: QuantizationConfig) -> None:
    assert config.settled == QuantizationConfig(weight_bits=4)
    assert type(config.settled) is QuantizationConfig
