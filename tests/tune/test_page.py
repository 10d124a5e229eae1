"""The page of a search: every trial on it, the front as a plot, and nothing from the network."""

from pathlib import Path

import pytest
from plotly.offline import get_plotlyjs
from searches import record, space

from yolo_dist.tune.figures import hypervolume_curve, importance_bars, trade_off
from yolo_dist.tune.page import LABELS, render_search
from yolo_dist.tune.results import SearchResults, results_of
from yolo_dist.tune.watching import describe

FAILED = record("ffff", 0.0, 1, state="failed", measured={}, reason="<layer> 3 would keep nothing")
TRIALS = [record("aaaa", 0.8, 500), record("bbbb", 0.6, 20), record("cccc", 0.5, 600), FAILED]


@pytest.fixture
def results(tmp_path: Path) -> SearchResults:
    return results_of(space(tmp_path, space={"pruned.percent": {"uniform": [0, 1]}}, searcher="tpe", trials=4), TRIALS)


def test_the_page_names_every_trial_and_leads_to_reports_that_there_are(results: SearchResults) -> None:
    page = render_search(results).replace(get_plotlyjs(), "")
    for trial in TRIALS:
        assert trial.id in page
        assert (f'<a href="trials/{trial.id}/report.html">{trial.id}</a>' in page) == (trial.state == "finished")
    assert "&lt;layer&gt; 3 would keep nothing" in page
    assert "2 trade-offs that no other trial beats" in page
    assert "4 trials (3 finished, 1 failed)" in page
    assert "://" not in page.replace("http://www.w3.org", "")


def test_the_plot_has_the_front_from_left_to_right_and_a_star_where_it_bends(results: SearchResults) -> None:
    figure = trade_off(results, "map50", "parameters", LABELS)
    assert figure is not None
    others, front, suggested = figure.data
    assert list(others.customdata) == ["trials/cccc/report.html"]
    assert (list(front.x), list(front.y)) == ([20, 500], [0.6, 0.8])
    assert len(suggested.x) == 1
    assert "pruned.percent: 0.5<br>map50 0.8<br>parameters 500" in front.text[1]
    assert figure.layout.xaxis.type == "log"


def test_what_is_outside_the_limits_is_marked(tmp_path: Path) -> None:
    results = results_of(space(tmp_path, constraints={"parameters": {"most": 550}}), TRIALS)
    figure = trade_off(results, "map50", "parameters", LABELS)
    assert figure is not None
    assert [(points.name, list(points.x)) for points in figure.data[:1]] == [("outside the limits", [600])]
    assert "<td>outside the limits</td>" in render_search(results)
    assert describe(TRIALS[2], results) == (
        "cccc: mAP50 0.500, 600 parameters, outside the limits (pruned.percent 0.4)"
    )


def test_the_hypervolume_grows(results: SearchResults) -> None:
    curve = hypervolume_curve(results)
    assert curve is not None
    assert list(curve.data[0].y) == sorted(curve.data[0].y)


def test_a_search_without_results_has_a_page_too(tmp_path: Path) -> None:
    nothing = results_of(space(tmp_path), [FAILED])
    assert trade_off(nothing, "map50", "parameters", LABELS) is None
    assert hypervolume_curve(nothing) is None
    assert importance_bars(nothing, LABELS) is None
    assert importance_bars(nothing.model_copy(update={"importance": {"map50": {}}}), LABELS) is None
    assert "No trial within the limits yet" in render_search(nothing)
