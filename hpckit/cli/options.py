"""Options and arguments that several commands share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

F = TypeVar("F", bound=Callable[..., Any])


def output_option(function: F) -> F:
    """Add --output: the folder of runs."""
    return click.option(
        "-o",
        "--output",
        type=click.Path(path_type=Path),
        help="The folder of runs  [default: $HPCKIT_RUNS, or runs]",
    )(function)


def json_option(function: F) -> F:
    """Add --json."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON.")(function)


def run_argument(function: F) -> F:
    """Add RUN: a directory, an id, the beginning of one, or `last`."""
    return click.argument("run", metavar="RUN")(function)


def site_option(function: F) -> F:
    """Add --site: the cluster."""
    return click.option("--site", help="A site's name or TOML file  [default: $HPCKIT_SITE]")(
        function
    )


def rules_options(function: F) -> F:
    """Add the fields of `hpckit.spec.rules.TaskRules`, in place of the job's own."""
    options = [
        click.option("--task-retries", type=click.IntRange(0), help="Try failed tasks again."),
        click.option("--task-timeout", help="The longest that a task may take, such as 10m."),
        click.option("--max-failures", type=click.IntRange(1), help="Stop after so many."),
    ]
    for option in reversed(options):
        function = option(function)
    return function


def gpus_option(function: F) -> F:
    """Add --gpus-per-task, in place of the job's own."""
    return click.option(
        "--gpus-per-task",
        type=click.IntRange(0),
        help="GPUs of a task or rank, in place of its own.",
    )(function)


def resource_options(function: F) -> F:
    """Add --walltime and --mem, in place of the job's own."""
    walltime = click.option("--walltime", help="In place of the job's, such as 2h.")
    mem = click.option("--mem", help="In place of the job's (a farm's: of a task), such as 4G.")
    return walltime(mem(function))
