"""Commands about jobs on a cluster: submit, jobs list, logs and stop."""

import sys
import time
from dataclasses import asdict
from typing import Annotated

import typer

from yolo_dist.cli import show
from yolo_dist.cli.options import Json
from yolo_dist.errors import ConfigError

Address = Annotated[
    str,
    typer.Option(
        "--address", envvar="RAY_API_SERVER_ADDRESS", help="Job server of the cluster, such as http://10.0.0.1:8265."
    ),
]
JobId = Annotated[str, typer.Argument(metavar="JOB", help="Id that submit printed.")]
PASS_THROUGH = {"allow_extra_args": True, "ignore_unknown_options": True}


def submit(
    context: typer.Context,
    address: Address,
    requirements: Annotated[
        bool,
        typer.Option(
            "--requirements/--no-requirements",
            help="Let the cluster install what this environment has; not where its image has it.",
        ),
    ] = True,
    variables: Annotated[
        list[str] | None,
        typer.Option(
            "--env",
            metavar="NAME",
            help="Variable to pass on; without it all AWS_…, WANDB_… and YOLO_DIST_… but names of files and folders.",
        ),
    ] = None,
    pass_on: Annotated[bool, typer.Option("--pass-on/--no-pass-on", help="Pass variables on at all.")] = True,
    job_id: Annotated[str | None, typer.Option("--id", help="Id of the job.", show_default=False)] = None,
    follow: Annotated[bool, typer.Option("--follow", help="Show what it prints, and wait for its end.")] = False,
    wait: Annotated[bool, typer.Option("--wait", help="Wait for its end, and exit with its code.")] = False,
    check: Annotated[bool, typer.Option("--check", help="Plan and print, send nothing.")] = False,
) -> None:
    """Run a recipe, or any other command, as a job on a cluster: submit RECIPE [key=value …] or submit COMMAND …

    The working directory travels without data, runs, caches and what git ignores. After `--` every option is the
    command's.

    Example: yolo-dist submit launch/bccd.yaml storage=s3://bucket/runs shards=s3://bucket/bccd --address http://10.0.0.1:8265
    """
    from yolo_dist.submission import JobServer, plan_submission

    if variables and not pass_on:
        raise ConfigError("--no-pass-on", [f"passes nothing on, --env {variables[0]} asks for it; leave one out"])
    planned = plan_submission(context.args, requirements, variables if pass_on else [])
    typer.echo(
        f"{len(planned.package.files)} files, {planned.package.bytes / 2**20:.1f} MiB; "
        f"variables passed on: {', '.join(planned.variables) or 'none'}",
        err=True,
    )
    typer.echo(planned.plain_line(address, job_id), err=not check)
    if check:
        return
    server = JobServer(address)
    job = server.submit(planned, job_id)
    typer.echo(job)
    if follow:
        server.follow(job, lambda text: (sys.stdout.write(text), sys.stdout.flush()))
    if follow or wait:
        ended = server.wait(job)
        typer.echo(f"{job}: {ended.status.lower()}; {' '.join(ended.message.split())}", err=True)
        raise typer.Exit(ended.code)


def list_jobs(address: Address, as_json: Json = False) -> None:
    """List the jobs of a cluster, the newest first.

    Example: yolo-dist jobs list --address http://10.0.0.1:8265
    """
    from yolo_dist.submission import JobServer

    jobs = JobServer(address).jobs()
    if as_json:
        show.as_json([asdict(job) for job in jobs])
        return
    rows = [
        (
            job.id,
            job.status.lower(),
            time.strftime("%Y-%m-%d %H:%M", time.localtime(job.started)) if job.started else "",
            f"{(job.ended or time.time()) - job.started:.0f}" if job.started else "",
            job.command,
        )
        for job in jobs
    ]
    show.table(("job", "status", "started", "seconds", "command"), rows, texts=("status", "started", "command"))


def logs(
    job: JobId, address: Address, follow: Annotated[bool, typer.Option("--follow", help="Until its end.")] = False
) -> None:
    """Show what a job has printed.

    Example: yolo-dist jobs logs raysubmit_4LamXRuQpYdSMg7J --follow --address http://10.0.0.1:8265
    """
    from yolo_dist.submission import JobServer

    server = JobServer(address)
    if follow:
        server.follow(job, lambda text: (sys.stdout.write(text), sys.stdout.flush()))
    else:
        sys.stdout.write(server.logs(job))


def stop(job: JobId, address: Address) -> None:
    """Stop a job; a training writes a checkpoint first, and the same submission goes on from it.

    Example: yolo-dist jobs stop raysubmit_4LamXRuQpYdSMg7J --address http://10.0.0.1:8265
    """
    from yolo_dist.submission import JobServer

    server = JobServer(address)
    running = server.stop(job)
    typer.echo(f"{job}: {server.wait(job).status.lower() if running else 'had ended before'}")
