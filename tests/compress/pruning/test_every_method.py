"""Every method on every backbone: a request either gives a proved network or says what would work."""

import pytest
from small_networks import random_images, randomize

from yolo_dist.compress.graph import ChannelGraph, Scope
from yolo_dist.compress.pruning import METHODS, PruneConfig, make_plan
from yolo_dist.compress.pruning.candidates import candidate_sets
from yolo_dist.compress.pruning.carry_out import Compact, carry_out
from yolo_dist.compress.pruning.proof import TOLERANCE, compare_outputs
from yolo_dist.compress.pruning.reestimation import reestimate_batchnorm
from yolo_dist.compress.residual import residual_blocks
from yolo_dist.config import validate
from yolo_dist.darknet.network import Network
from yolo_dist.darknet.shapes import count_parameters
from yolo_dist.darknet.zoo import ZOO, zoo_cfg
from yolo_dist.errors import PruneError

SIZE = (64, 64)
LAYER_METHODS = {"layer", "layer-channel", "layer-channel-regular"}


@pytest.fixture(scope="module", params=ZOO)
def network(request: pytest.FixtureRequest) -> Network:
    """Random numbers, and statistics that keep the outputs of a deep network in the usual range."""
    network = randomize(Network(zoo_cfg(request.param, classes=3, image_size=SIZE, width=0.125)))
    reestimate_batchnorm(network, [random_images(2, SIZE, seed=1)])
    return network


def request_for(method: str, percent: float, scope: Scope, network: Network) -> PruneConfig:
    amount: dict[str, object] = {"percent": percent}
    if method == "layerwise":
        amount = {"percents": [percent] * len(candidate_sets(ChannelGraph.from_cfg(network.cfg), scope))}
    if method == "eagle-eye":
        amount = {"target_macs": 1 - percent, "reestimate_images": 1}
    if method.endswith("regular"):
        amount["round_to"] = 4
    return validate(PruneConfig, {"method": method, "scope": scope, **amount}, "prune")


def proved(network: Network, config: PruneConfig) -> Compact:
    """What comes out, found equal to the masked network."""
    plan = make_plan(network, config)
    result = carry_out(network, plan)
    agreement = compare_outputs(
        result.full, result.network, result.graph, result.kept, random_images(2, SIZE), plan.blocks
    )
    assert agreement.max_abs_difference <= TOLERANCE
    return result


@pytest.mark.parametrize(("percent", "scope"), [(0.3, "classic"), (0.6, "full")])
@pytest.mark.parametrize("method", sorted(METHODS))
def test_methods_prove_their_results_twice_or_say_what_works(
    network: Network, method: str, percent: float, scope: Scope
) -> None:
    if method in LAYER_METHODS and not residual_blocks(proved(network, PruneConfig(percent=0.0)).graph):
        with pytest.raises(PruneError, match="try normal, regular or slim"):
            make_plan(network, request_for(method, percent, scope, network))
        return
    once = proved(network, request_for(method, percent, scope, network)).network
    assert count_parameters(once.cfg) < count_parameters(network.cfg)
    twice = proved(once, request_for("slim", 0.9, scope, once)).network
    assert count_parameters(twice.cfg) < count_parameters(once.cfg)
