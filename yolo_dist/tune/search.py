"""A search from its beginning to its end, or on from where it stopped."""

import logging
import os
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from ray import tune
from upath import UPath

from yolo_dist.config import read_yaml
from yolo_dist.console import say
from yolo_dist.errors import ConfigError, Interrupted
from yolo_dist.inputs import check
from yolo_dist.layout import RECIPE_FILE, SPACE_FILE, UNFINISHED
from yolo_dist.lease import hold, last_sign
from yolo_dist.ray_cluster import join_cluster, problems_of_workers, resources_of_nodes, room_for
from yolo_dist.recipe import Recipe
from yolo_dist.stage_tracking import run_identity
from yolo_dist.storage import local_copy, location, publish, remove
from yolo_dist.train.cluster import ClusterConfig
from yolo_dist.train.stopping import Stop, hearing_signals
from yolo_dist.tune.check import check_space
from yolo_dist.tune.page import render_search
from yolo_dist.tune.pauses import note_pause
from yolo_dist.tune.record import TrialRecord, read_records
from yolo_dist.tune.results import SearchResults
from yolo_dist.tune.searcher import Proposals
from yolo_dist.tune.shared_stages import LEASES
from yolo_dist.tune.space import Space, searched_space
from yolo_dist.tune.stopping import scheduler_of
from yolo_dist.tune.trial import Run, TrialPlan, run_pipeline
from yolo_dist.tune.trial_process import TrialProcess, outcome_of
from yolo_dist.tune.watching import Watching, write_results

PAGE = "tune.html"
GOES_ON = "--resume goes on with the others"


def check_search(space: Space, source: str) -> Recipe:
    """Look at everything that a search refers to, and at what it runs on; start nothing.

    Raises:
        ConfigError: everything that is wrong.
    """

    def problems_of_all(recipe: Recipe) -> list[str]:
        cluster, place = recipe.cluster, {"name": space.name, "storage": space.storage}
        return [
            *_problems_of_inputs(recipe.model_copy(update=place)),
            *problems_of_workers(cluster.resources, max(1, cluster.fewest_workers), "cluster.workers"),
        ]

    return check_space(space, source, problems_of_all)


def search(space: Space, source: str = "", resume: bool = False, run: Run = run_pipeline) -> SearchResults:
    """Search a space; the results lie in `storage/name` afterwards.

    Args:
        space: what to search.
        source: its file, for messages; its name by default.
        resume: go on with the search that is there: trials that are over stay, those that ran go on.
        run: what is done with each trial's recipe.

    Raises:
        ConfigError: see `check_search`; there is a search already, or another one than that to go on with.
        Interrupted: by SIGINT or SIGTERM; the results so far are written.
        RunHeld: another process runs it.
    """
    source = source or space.name
    recipe = check_search(space, source)
    folder = location(space.storage) / space.name
    values = read_yaml(space.recipe)
    require_this_search(space, source, resume)  # what is refused gives no sign of life, which would end a pause
    stopped = last_sign(folder)
    with hold(folder, say):
        require_this_search(space, source, resume)  # another process may have begun or ended one since
        if stopped is not None and (folder / SPACE_FILE).exists():
            note_pause(folder, stopped)
        publish(folder / SPACE_FILE, space.to_yaml())  # first: a recipe alone is that of a run
        publish(folder / RECIPE_FILE, yaml.safe_dump(values, sort_keys=False, allow_unicode=True))
        identity = run_identity(folder, recipe.tracking)
        plan = TrialPlan(space, values, str(folder), identity, str(Path.cwd()), run, recipe)
        stopped_by = _fit(plan, recipe)
        results = write_results(plan)
        publish(folder / PAGE, render_search(results))
        over = sum(record.over and not record.lost for record in results.trials)
        if over >= space.most_trials:
            _tidy(folder)
    if over < space.most_trials:
        reached = f"{over} of {space.most_trials} trials"
        if stopped_by:
            raise Interrupted(stopped_by, f"after {reached}", GOES_ON)
        say(f"{space.name}: {reached} are over; {GOES_ON}")
    return results


def _tidy(search: UPath) -> None:
    """Remove what stopped and failed trials left unfinished; finished stages stay for more trials."""
    for stage in (search / "shared").iterdir() if (search / "shared").exists() else ():
        for unfinished in (*UNFINISHED, LEASES):
            remove(stage / unfinished)


def _problems_of_inputs(recipe: Recipe) -> list[str]:
    try:
        check(recipe)
    except ConfigError as error:
        return error.problems
    return []


def require_this_search(space: Space, source: str, resume: bool) -> None:
    """Refuse to mix trials of two searches.

    Args:
        space: what shall be searched.
        source: its file, for messages.
        resume: whether the search that is there shall go on.

    Raises:
        ConfigError: what there is must not be gone on with.
    """
    folder = location(space.storage) / space.name
    if not (folder / SPACE_FILE).exists():
        if (folder / RECIPE_FILE).exists():
            raise ConfigError(source, [f"{folder} holds a run; give the search another name=… or storage=…"])
        return
    if not resume:
        raise ConfigError(source, [f"{folder} holds a search; go on with --resume, or give another name=…"])
    before = searched_space(folder)
    changed = [
        key for key in ("space", "overrides", "objectives", "stage") if getattr(before, key) != getattr(space, key)
    ]
    if (folder / RECIPE_FILE).exists():
        with local_copy(folder / RECIPE_FILE) as file:
            changed += ["recipe"] if read_yaml(file) != read_yaml(space.recipe) else []
    if changed:
        raise ConfigError(source, [f"{key}: is not what the search in {folder} began with" for key in changed])


def _fit(plan: TrialPlan, recipe: Recipe) -> int:
    """Run the trials that are left; by which signal that ended, 0 if by none."""
    space, cluster = plan.space, recipe.cluster
    records = list(_begun(location(plan.folder)))
    proposals = Proposals(
        space,
        known=[(record.values, outcome_of(record, plan)) for record in records if record.over],
        first=[record.values for record in records if not record.over],
    )
    if proposals.left <= 0:
        return 0

    def end(number: int) -> None:
        stop.ask(number)
        if not callable(signal.getsignal(signal.SIGUSR1)):  # Tune has not begun
            raise KeyboardInterrupt
        signal.raise_signal(signal.SIGUSR1)  # by which Tune ends and leaves trials as they are

    stop = Stop()
    try:
        with hearing_signals(end, "ending"):
            join_cluster(cluster.resources, max(1, cluster.fewest_workers), "cluster.workers", quiet=True)
        with hearing_signals(end, "ending"):  # once more, for Ray puts its own answer to SIGTERM in the place of ours
            _tune(plan, proposals, cluster)
    except KeyboardInterrupt:
        return stop.signal or signal.SIGINT
    except SystemExit as error:
        if error.code != signal.SIGTERM:  # Ray's answer to it
            raise
        return signal.SIGTERM
    return stop.signal


def _tune(plan: TrialPlan, proposals: Proposals, cluster: ClusterConfig) -> None:
    """Let Ray Tune run what is proposed."""
    logging.getLogger("ray.tune").setLevel(logging.ERROR)
    os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")
    os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")  # the newer one tells of Tune's own folder, which goes
    os.environ["RAY_CHDIR_TO_TRIAL_DIR"] = "0"  # the recipe's paths are relative to the folder of the search
    os.environ["TUNE_DISABLE_SIGINT_HANDLER"] = "1"  # ours hears SIGTERM too, which batch systems send
    space = plan.space
    trainable = tune.with_resources(tune.with_parameters(TrialProcess, plan=plan), _resources(cluster))
    with tempfile.TemporaryDirectory(prefix="yolo-dist-tune-") as notes:
        tune.Tuner(
            trainable,
            tune_config=tune.TuneConfig(
                num_samples=proposals.left,
                search_alg=proposals,
                scheduler=scheduler_of(space.stopping, space.objectives),
                max_concurrent_trials=min(space.concurrent or proposals.left, _room(cluster)),
                reuse_actors=space.stopping is None,
            ),
            run_config=tune.RunConfig(
                name=space.name,
                storage_path=notes,  # what Tune notes; our own records are what a search goes on from
                callbacks=[Watching(plan)],
                checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),  # trials keep their own
                failure_config=tune.FailureConfig(max_failures=space.max_failures),
                verbose=0,
            ),
        ).fit()


def _begun(search: UPath) -> Iterator[TrialRecord]:
    """Trials of the search so far; those that were lost run again."""
    for record in read_records(search):
        if not record.lost:
            yield record
            continue
        again = record.to_try_again()
        again.save(search)
        yield again


def _resources(cluster: ClusterConfig) -> Any:
    """What a trial's own process takes: all, where it trains itself, else nothing, for its workers take theirs."""
    if cluster.most_workers:
        return {"memory": 1 << 20}  # Tune refuses nothing at all, and the smallest part of a core would be missed
    return cluster.resources


def _room(cluster: ClusterConfig) -> int:
    """Trials whose workers the cluster holds at a time, so that none gets half of what it needs."""
    return max(1, room_for(resources_of_nodes(), cluster.resources) // max(1, cluster.fewest_workers))
