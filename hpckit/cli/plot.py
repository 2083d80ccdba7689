"""hpckit plot: a farm's course as a figure."""

from __future__ import annotations

from pathlib import Path

import click

from hpckit.cli.options import output_option, run_argument


@click.command(help="Draw how a farm went on: tasks ended, tasks at work, workers.")
@run_argument
@click.argument("file", required=False, type=click.Path(path_type=Path))
@output_option
def command(run: str, file: Path | None, output: Path | None) -> None:
    """Write a figure, to RUN.png where no FILE is given, and print its name."""
    from hpckit.analyse.plots import plot_course
    from hpckit.analyse.timeline import timeline
    from hpckit.cli.asking import find_settled

    found = find_settled(run, output)
    path = file or Path(f"{found.id}.png")
    plot_course(timeline(found), found.id, path)
    click.echo(path)
