"""Latency: what is measured, and that measuring leaves no trace."""

import pytest
import torch

from yolo_dist.darknet.network import Network, initialize
from yolo_dist.darknet.zoo import zoo_cfg
from yolo_dist.evaluate.latency import measure_latency, network_latency_ms, nms_latency_ms

IMAGE = torch.randint(0, 256, (1, 3, 64, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def network() -> Network:
    network = Network(zoo_cfg("yolov3-tiny", width=0.25))
    initialize(network, seed=0)
    return network


def test_sixteen_times_the_pixels_take_longer(network: Network) -> None:
    assert network_latency_ms(network, (256, 256), repeats=5) > network_latency_ms(network, (64, 64), repeats=5) > 0


def test_suppression_is_timed_apart_from_the_network(network: Network) -> None:
    latency = measure_latency(network, IMAGE, repeats=3)
    assert latency.network_ms > 0
    assert latency.nms_ms > 0
    assert nms_latency_ms(network, IMAGE, repeats=3) > 0


def test_threads_mode_and_memory_layout_are_left_alone(network: Network) -> None:
    network.train()
    threads = torch.get_num_threads()
    layouts = [parameter.stride() for parameter in network.parameters()]
    measure_latency(network, IMAGE, threads=threads + 1, repeats=3)
    assert torch.get_num_threads() == threads
    assert all(module.training for module in network.modules())
    assert [parameter.stride() for parameter in network.parameters()] == layouts
