"""The page of a sensitivity analysis: its numbers are on it, and it needs no network."""

import numpy as np
from plotly.offline import get_plotlyjs

from yolo_dist.compress.pruning.trials import Outcome
from yolo_dist.compress.sensitivity.record import Curve, Sensitivity, Trial
from yolo_dist.report import figures
from yolo_dist.report.sensitivity import render_sensitivity


def curve(layers: tuple[int, ...], *map50s: float | None) -> Curve:
    trials = (
        Trial(
            amount=amount,
            count=1,
            outcome=None if map50 is None else Outcome(parameters=9, map=map50 / 2, map50=map50),
            remark="",
        )
        for amount, map50 in zip((0.3, 0.6), map50s, strict=True)
    )
    return Curve(layers=layers, channels=8, trials=tuple(trials))


FOUND = Sensitivity(
    key="",
    unit="percent",
    images=6,
    unchanged=Outcome(parameters=10, map=0.4, map50=0.8),
    method="shortcut",
    together=curve((), 0.6, None),
    sets=(curve((0,), 0.7, 0.3), curve((1, 4, 7), 0.8, 0.75)),
)


def test_the_map_has_a_row_a_layer_and_a_column_a_percent() -> None:
    figure = figures.sensitivity_map(FOUND)
    assert figure is not None
    (heat_map,) = figure.data
    assert list(heat_map.x) == ["0.3", "0.6"]
    assert list(heat_map.y) == ["0", "1 + 2 tied"]
    assert np.allclose(heat_map.z, [[0.1, 0.5], [0, 0.05]])
    assert heat_map.zmax == 0.8


def test_the_curve_of_all_layers_starts_uncut_and_ends_where_a_layer_would_vanish() -> None:
    figure = figures.sensitivity_curves(FOUND)
    assert figure is not None
    assert [(line.name, list(line.x), list(line.y)) for line in figure.data] == [
        ("mAP50", [0, 0.3], [0.8, 0.6]),
        ("mAP", [0, 0.3], [0.4, 0.3]),
    ]


def by_bits(one: Curve) -> Curve:
    trials = tuple(
        trial.model_copy(update={"amount": bits, "count": bits}) for trial, bits in zip(one.trials, (8, 4), strict=True)
    )
    return one.model_copy(update={"trials": trials})


def test_bits_stand_where_percents_stood() -> None:
    found = FOUND.model_copy(
        update={
            "unit": "bits",
            "method": "google",
            "together": by_bits(FOUND.together),
            "sets": tuple(map(by_bits, FOUND.sets)),
        }
    )
    heat_map, curves = figures.sensitivity_map(found), figures.sensitivity_curves(found)
    assert heat_map is not None
    assert curves is not None
    assert list(heat_map.data[0].x) == ["8", "4"]
    assert heat_map.layout.xaxis.title.text == curves.layout.xaxis.title.text == "bits"
    assert list(curves.data[0].x) == ["float", "8"]
    page = render_sensitivity(found, "model")
    assert "with fewer bits and without any training; the network as it is has 0.800" in page
    assert "(scheme google)" in page
    assert "a layer would vanish" not in page


def test_nothing_measured_is_no_figure() -> None:
    empty = FOUND.model_copy(update={"unchanged": None})
    assert figures.sensitivity_map(empty) is None
    assert figures.sensitivity_curves(empty) is None
    assert "Each layer alone" not in render_sensitivity(empty, "model")


def test_the_page_holds_both_plots_and_escapes_what_it_is_told() -> None:
    text = render_sensitivity(FOUND, "<b>runs")
    assert text.count(get_plotlyjs()) == 1
    page = text.replace(get_plotlyjs(), "")
    assert "Each layer alone" in page
    assert 'id="sensitivity-map"' in page
    assert 'id="sensitivity-curves"' in page
    assert "<title>Sensitivity of &lt;b&gt;runs · yolo-dist</title>" in page
    assert "after a cut and before any fine-tuning; the network as it is has 0.800" in page
    assert "src=" not in page
    assert "<link" not in page
