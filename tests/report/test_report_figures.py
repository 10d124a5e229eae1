import numpy as np
import pytest
from synthetic_run import EDGES, epochs, evaluation

from yolo_dist.evaluate.metrics import Metrics
from yolo_dist.report import figures
from yolo_dist.report.run import Epoch, Noise


def read(stage: str, count: int, gauge: bool = False) -> list[Epoch]:
    return [Epoch.model_validate(line) for line in epochs(stage, count, gauge)]


def test_loss_curves_run_through_all_stages_and_name_them() -> None:
    figure = figures.loss_curves({"base": read("base", 3), "tuned": read("tuned", 2)})
    assert figure is not None
    total = next(trace for trace in figure.data if trace.name == "total")
    assert list(total.x) == [1, 2, 3, 4, 5]
    assert total.y == pytest.approx([4, 2, 4 / 3, 4, 2])
    assert [note.text for note in figure.layout.annotations] == ["base", "tuned"]
    assert [(shape.x0, shape.x1) for shape in figure.layout.shapes] == [(3.5, 5.5)]


def test_accuracy_is_drawn_only_where_it_was_evaluated() -> None:
    stage = [epoch.model_copy(update={"map": None, "map50": None}) for epoch in read("base", 2)] + read("base", 3)[2:]
    figure = figures.accuracy_curves({"base": stage})
    assert figure is not None
    assert [(trace.name, list(trace.x)) for trace in figure.data] == [("mAP50", [3]), ("mAP", [3])]


def test_noise_has_a_bar_a_layer_and_heads_stand_out() -> None:
    noise = Noise.model_validate(
        {
            "images": 8,
            "layers": [
                {"layer": 0, "kind": "convolutional", "snr_db": 40.5},
                {"layer": 1, "kind": "route", "snr_db": None},
                {"layer": 2, "kind": "yolo", "snr_db": 31.0},
            ],
        }
    )
    figure = figures.noise_of_layers(noise)
    assert figure is not None
    (bars,) = figure.data
    assert (list(bars.x), list(bars.y)) == ([0, 2], [40.5, 31.0])
    assert bars.marker.color[0] != bars.marker.color[1]
    assert figures.noise_of_layers(Noise(images=1, layers=[])) is None


def test_a_column_of_the_gamma_heat_map_sums_to_all_channels() -> None:
    figure = figures.gamma_histograms(read("sparse", 3, gauge=True))
    assert figure is not None
    heat_map, median = figure.data
    assert np.asarray(heat_map.z).sum(axis=0) == pytest.approx([100, 100, 100])
    assert np.asarray(heat_map.z)[0] == pytest.approx([33, 67, 100])
    assert list(heat_map.y) == EDGES[2:6], "empty bins at both ends are cut off"
    assert median.y == pytest.approx([0.7, 0.4, 0.1])


def test_a_bin_that_starts_at_zero_gets_a_place_on_the_log_axis() -> None:
    stage = read("sparse", 1, gauge=True)
    assert stage[0].gauge is not None
    assert stage[0].gauge.histogram is not None
    stage[0].gauge.histogram.counts[0] = 5
    figure = figures.gamma_histograms(stage)
    assert figure is not None
    assert figure.data[0].y[:2] == pytest.approx((1e-5, 1e-4))


def test_shares_are_drawn_as_the_gauge_saw_them() -> None:
    figure = figures.sparsity_shares(read("sparse", 2, gauge=True))
    assert figure is not None
    assert {trace.name: trace.y[-1] for trace in figure.data} == pytest.approx(
        {"prunable": 0.72, "|γ| &lt; 0.01": 0.9, "|γ| &lt; 0.001": 0.4}
    )


def test_precision_recall_curves_put_the_last_model_in_front() -> None:
    models = {name: Metrics.model_validate(evaluation(map50)) for name, map50 in (("base", 0.9), ("tuned", 0.8))}
    mean = figures.mean_precision_recall(models)
    by_class = figures.class_precision_recall(models, ["RBC"])
    assert mean is not None
    assert by_class is not None
    assert [(curve.name, curve.line.color) for curve in mean.data][-1] == ("tuned", figures.ACCENT)
    assert mean.data[-1].y == pytest.approx(models["tuned"].precision_recall.mean)
    assert [(curve.name, curve.line.dash) for curve in by_class.data] == [("RBC, base", "dot"), ("RBC", "solid")]


def test_nothing_to_show_is_no_figure() -> None:
    empty = Metrics.model_validate(evaluation(0.5, classes=()) | {"precision_recall": {"mean": [], "per_class": {}}})
    assert figures.loss_curves({}) is None
    assert figures.accuracy_curves({"base": []}) is None
    assert figures.gamma_histograms(read("base", 2)) is None
    assert figures.sparsity_shares(read("base", 2)) is None
    assert figures.mean_precision_recall({"base": empty}) is None
    assert figures.class_precision_recall({"base": empty}, ["RBC"]) is None
