"""hpckit show: a run and its results."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import click

from hpckit.cli.options import json_option, output_option, run_argument

if TYPE_CHECKING:
    from hpckit.analyse.variables import Variable
    from hpckit.store.rundir import RunDir

ROWS = 20
MAX_REASONS = 5


@click.command(help="Show a run and its results as a table.")
@run_argument
@click.option(
    "--rows",
    type=click.IntRange(1),
    metavar="N",
    help=f"The first N tasks, or keys  [default: {ROWS}; with --json all]",
)
@click.option("--all", "everything", is_flag=True, help="All tasks.")
@output_option
@json_option
def command(
    run: str, rows: int | None, everything: bool, output: Path | None, as_json: bool
) -> None:
    """Show what a run was and what it gave."""
    from hpckit.analyse import overview
    from hpckit.analyse.counts import sealed_counts
    from hpckit.cli.asking import looked_at
    from hpckit.cli.console import print_facts
    from hpckit.store import manifest as manifests

    found, standing = looked_at(run, output)
    manifest = manifests.read(found.manifest)
    counts = sealed_counts(found, manifest) if manifest.job.kind == "farm" else None
    if as_json:
        _print_json(
            found, overview.to_json(found, manifest, counts, standing), None if everything else rows
        )
        return
    print_facts(overview.facts(found, manifest, counts, standing))
    if found.results.is_file():
        _print_results(found, None if everything else rows or ROWS)


def _print_results(run: RunDir, limit: int | None) -> None:
    from hpckit.analyse import tables
    from hpckit.analyse.merged import merged
    from hpckit.analyse.variables import are_a_farms, open_variables
    from hpckit.cli.console import print_table

    with open_variables(run.results) as variables:
        if are_a_farms(variables):
            if merged(variables):
                _print_merged(variables, limit)
            else:
                _print_tasks(variables, limit)
            _print_failures(run, variables)
            return
        for table in (tables.field_table(variables), tables.record_table(variables)):
            if table.rows:
                click.echo()
                print_table(table)


def _print_tasks(variables: Mapping[str, Variable], limit: int | None) -> None:
    from hpckit.analyse.tables import task_tables
    from hpckit.cli.console import print_facts, print_table

    total = variables["task_state"].rows
    count = total if limit is None else min(limit, total)
    left_out: dict[str, None] = {}
    for page in task_tables(variables, count):
        click.echo()
        left_out |= dict.fromkeys(print_table(page))
    if count < total:
        click.echo(f"… and {total - count} more: --all, or --rows N")
    if left_out:
        print_facts([("no room for", f"{', '.join(left_out)} (a wider terminal has, and --json)")])


def _print_merged(variables: Mapping[str, Variable], limit: int | None) -> None:
    from hpckit.analyse.merged import key_tables, keyed, value_table
    from hpckit.analyse.tables import without_empty
    from hpckit.cli.console import print_table

    values = value_table(variables)
    if values.rows:
        click.echo()
        print_table(without_empty(values))
    for variable in keyed(variables):
        total = variable.rows
        count = total if limit is None else min(limit, total)
        for page in key_tables(variables, variable, count):
            click.echo()
            print_table(page)
        if count < total:
            click.echo(f"… and {total - count} more of {total}: --all, or --rows N")


def _print_failures(run: RunDir, variables: Mapping[str, Variable]) -> None:
    from hpckit.analyse.status import reference
    from hpckit.analyse.tables import failure_table
    from hpckit.cli.console import print_table
    from hpckit.store.block import TaskState

    failed = int((variables["task_state"].values(()) == TaskState.FAILED).sum())
    if not failed:
        return
    click.echo()
    print_table(failure_table(run.results, variables, MAX_REASONS))
    if failed > MAX_REASONS:
        click.echo(f"… and {failed - MAX_REASONS} more failed")
    click.echo(f"in full: hpckit logs {reference(run)} --task N")


def _print_json(run: RunDir, header: Mapping[str, object], limit: int | None) -> None:
    from hpckit.analyse.documents import document
    from hpckit.analyse.variables import open_variables

    if not run.results.is_file():
        click.echo("".join(document(header, {}, limit)))
        return
    with open_variables(run.results) as variables:
        for piece in document(header, variables, limit):
            click.echo(piece, nl=False)
        click.echo()
