"""Which evaluation was the best, when to stop waiting for a better one, and both networks of a stage."""

import json
from pathlib import Path

import pytest
import torch
from tiny_runs import prepare, recipe, stage_file
from tiny_training import SIZE, scenes, tiny_network, training

from yolo_dist.bundle import open_bundle
from yolo_dist.darknet.network import Network
from yolo_dist.darknet.weights import weights_bytes
from yolo_dist.errors import ConfigError
from yolo_dist.evaluate.evaluator import Evaluation
from yolo_dist.pipeline import run
from yolo_dist.train import ray_trainer
from yolo_dist.train.best import BestNetwork, Keep
from yolo_dist.train.loop import Trainer
from yolo_dist.train.workers import Workers


def marked(number: float) -> Network:
    """A network that can be told from others."""
    network = tiny_network()
    with torch.no_grad():
        next(network.parameters()).fill_(number)
    return network


def mark_of(network: Network) -> float:
    return float(next(network.parameters()).detach().flatten()[0])


def seen(*maps: float | None, keep: Keep | None = "best", patience: int | None = None) -> BestNetwork:
    best = BestNetwork(keep, patience, Workers())
    for epoch, measured in enumerate(maps, 1):
        best.see(marked(epoch), epoch, measured)
    return best


@pytest.mark.parametrize(
    ("maps", "epoch", "waited"),
    [
        pytest.param((0.1, 0.3, 0.2), 2, 1, id="the largest"),
        pytest.param((0.1, 0.3, 0.3), 2, 1, id="the first of equal ones"),
        pytest.param((0.0, 0.0), 1, 1, id="a network that finds nothing is better than none"),
        pytest.param((None, None), 0, 2, id="nothing to find, nothing to choose"),
        pytest.param((0.1, 0.2, 0.3), 3, 0, id="the last"),
    ],
)
def test_the_best_evaluation_is(maps: tuple[float | None, ...], epoch: int, waited: int) -> None:
    best = seen(*maps)
    assert (best.epoch, best.waited) == (epoch, waited)


def test_patience_is_used_up_after_so_many_evaluations_in_a_row() -> None:
    given_up = [seen(*[0.2, 0.1, 0.3, 0.1, 0.3, 0.2][:count], patience=3).given_up for count in range(7)]
    assert given_up == [False, False, False, False, False, False, True]
    assert not seen(0.3, *[0.1] * 50).given_up


@pytest.mark.parametrize(("keep", "asked", "beside"), [("best", 2, 3), ("last", 3, 2)])
def test_the_network_asked_for_is_given_and_the_other_lies_beside_it(keep: Keep, asked: int, beside: int) -> None:
    kept, other = seen(0.1, 0.3, 0.2, keep=keep).kept(marked(3), 3)
    assert other is not None
    assert (kept.name, {kept.name, other.name}) == (keep, {"best", "last"})
    assert mark_of(kept.network) == kept.epoch == asked
    assert mark_of(other.network) == other.epoch == beside


def test_there_is_one_network_where_best_and_last_are_the_same_or_nobody_asked() -> None:
    for best in (seen(0.1, 0.2, 0.3), seen(0.3, 0.2, 0.1, keep=None), seen(None, None, None)):
        kept, other = best.kept(marked(3), 3)
        assert (kept.name, mark_of(kept.network), other) == ("last", 3, None)


def test_what_is_remembered_does_not_change_with_the_network() -> None:
    best, network = BestNetwork("best", None, Workers()), marked(1)
    best.see(network, 1, 0.5)
    with torch.no_grad():
        next(network.parameters()).fill_(9)
    assert mark_of(best.kept(network, 2)[0].network) == 1


def test_the_best_network_survives_an_interruption_without_unpickling_code(tmp_path: Path) -> None:
    shards = scenes(tmp_path / "scenes", images=4)
    first, second = (
        Trainer(tiny_network(seed), shards, training(epochs=9, keep="best", patience=2), SIZE, threads=0)
        for seed in (0, 1)
    )
    first.best.see(marked(7), 1, 0.5)
    first.best.see(marked(8), 2, 0.4)
    first.epoch = 2
    torch.save(first.state(), tmp_path / "state.pt")
    second.restore(torch.load(tmp_path / "state.pt", weights_only=True))
    assert not second.finished
    second.best.see(marked(9), 3, 0.5)
    assert second.finished
    assert mark_of(second.best.kept(marked(9), 3)[0].network) == 7


def test_workers_that_measured_nothing_hear_from_the_first(group_of_one: None) -> None:
    """The other end of the sum is missing here: what counts is that only the first worker's number is taken."""
    other = BestNetwork("best", 1, Workers(1, 2))
    other.see(marked(1), 1, 0.9)
    assert (other.map, other.epoch) == (-1, 0)


def test_patience_without_evaluations_is_refused() -> None:
    with pytest.raises(ConfigError, match="patience counts evaluations, and evaluate_every 0 makes none"):
        training(patience=2, evaluate_every=0)


EVALUATED = ray_trainer._evaluated


def planted_maps(monkeypatch: pytest.MonkeyPatch, *maps: float) -> None:
    """Let the evaluations of a training stage come out as given, one after another."""
    left = list(maps)

    def planted(*arguments: object, **options: object) -> Evaluation:
        evaluation = EVALUATED(*arguments, **options)  # type: ignore[arg-type]
        assert evaluation is not None
        metrics = evaluation.metrics.model_copy(update={"map": left.pop(0)})
        return Evaluation(metrics, evaluation.detections)

    monkeypatch.setattr(ray_trainer, "_evaluated", planted)


STAGE = {"id": "base", "kind": "train", "epochs": 9, "evaluate_every": 1, "keep": "best", "patience": 2}


def test_a_stage_stops_early_and_leaves_the_best_network_and_the_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Evaluations after epochs 1 to 4, of the last network in float32, and of the best one."""
    folder = prepare(tmp_path)
    planted_maps(monkeypatch, 0.1, 0.3, 0.2, 0.1, 0.1, 0.29)
    (result,) = run(recipe(folder, stages=[STAGE]))
    assert result.map == 0.29
    assert len((folder / "runs" / "tiny" / "metrics.jsonl").read_text().splitlines()) == 4
    said = capsys.readouterr().out
    assert "base: no better mAP in 2 evaluations, stopped after 4 of 9 epochs" in said
    assert "best mAP 0.300 after epoch 2 of 4; the bundle is the best network, the last one lies in last/" in said
    best = open_bundle(stage_file(folder, "base", ""))
    last = open_bundle(stage_file(folder, "base", "last"))
    assert best.parent == last.parent
    assert last.stage is not None
    assert (last.stage["id"], last.stage["epoch"]) == ("base", 4)
    assert not stage_file(folder, "base", "best").exists()

    # the same learning rates for as many epochs as the best one was after: the same network
    plain = STAGE | {"keep": None, "patience": 1}
    planted_maps(monkeypatch, 0.2, 0.1, 0.1)
    run(recipe(folder, name="again", stages=[plain]))
    again = open_bundle(folder / "runs" / "again" / "stages" / "base")
    assert weights_bytes(again.network) == weights_bytes(best.network) != weights_bytes(last.network)
    assert not (folder / "runs" / "again" / "stages" / "base" / "last").exists()
    assert json.loads((folder / "runs" / "again" / "stages" / "base" / "evaluation.json").read_text())["map"] == 0.1
