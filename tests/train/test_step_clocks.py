"""The benchmark of a training step puts its clocks around what the loop really calls."""

from pathlib import Path

import pytest
from tiny_training import SIZE, scenes, tiny_network, training

from yolo_dist.train.loop import Trainer

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
PHASES = {"waiting for data", "forward", "backward", "loss", "target assignment", "optimizer", "penalty", "average"}


def test_every_phase_of_a_step_takes_time_and_training_is_what_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import training_step

    shards = scenes(tmp_path, images=16)
    timed, plain = (
        Trainer(tiny_network(), shards, training(sparsity={"factor": 0.01}), SIZE, threads=0) for _ in range(2)
    )
    table = training_step.steps_of(timed, epochs=1).table(clock=0, warm_up=1)
    assert set(table) > PHASES
    assert all(table[phase] > 0 for phase in PHASES)
    plain.run_epoch()
    for ours, theirs in zip(timed.network.parameters(), plain.network.parameters(), strict=True):
        assert bool((ours == theirs).all())
