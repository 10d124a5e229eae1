"""Latency: what is measured, and that measuring leaves no trace."""

import pytest
import torch

from yolo_dist.darknet.network import Network, initialize
from yolo_dist.darknet.zoo import zoo_cfg
from yolo_dist.evaluate.latency import network_latency_ms


@pytest.fixture
def network() -> Network:
    network = Network(zoo_cfg("yolov3-tiny", width=0.25))
    initialize(network, seed=0)
    return network


def test_sixteen_times_the_pixels_take_longer(network: Network) -> None:
    assert network_latency_ms(network, (256, 256), repeats=5) > network_latency_ms(network, (64, 64), repeats=5) > 0


def test_threads_mode_and_memory_layout_are_left_alone(network: Network) -> None:
    network.train()
    threads = torch.get_num_threads()
    layouts = [parameter.stride() for parameter in network.parameters()]
    network_latency_ms(network, (64, 64), threads=threads + 1, repeats=3)
    assert torch.get_num_threads() == threads
    assert all(module.training for module in network.modules())
    assert [parameter.stride() for parameter in network.parameters()] == layouts
