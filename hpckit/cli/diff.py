"""hpckit diff: what differs between two runs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hpckit.cli.options import json_option, output_option

if TYPE_CHECKING:
    from hpckit.analyse.compare_results import VariableDifference, Verdict
    from hpckit.analyse.compare_runs import Change, RunDifference
    from hpckit.store.manifest import Manifest

DIFF_LINES = 60


@click.command(help="Say what differs between two runs.")
@click.argument("a", metavar="A")
@click.argument("b", metavar="B")
@click.option("--rtol", type=click.FloatRange(0), default=0.0, help="Relative tolerance.")
@click.option("--atol", type=click.FloatRange(0), default=0.0, help="Absolute tolerance.")
@output_option
@json_option
@click.pass_context
def command(
    context: click.Context,
    a: str,
    b: str,
    rtol: float,
    atol: float,
    output: Path | None,
    as_json: bool,
) -> None:
    """Compare code, parameters, environment and results of two runs.

    Exit 0 if the results are identical or equal within tolerance, else 1.
    """
    from hpckit.analyse.compare_results import Verdict, compare_results, overall
    from hpckit.analyse.compare_runs import compare_runs
    from hpckit.cli.asking import find_settled
    from hpckit.store import manifest as manifests
    from hpckit.store.rundir import require_results

    runs = [find_settled(ref, output) for ref in (a, b)]
    made = [manifests.read(run.manifest) for run in runs]
    difference = compare_runs(runs[0], made[0], runs[1], made[1])
    if not as_json:
        _print_runs(made)
        _print_difference(difference)
    paths = [require_results(run) for run in runs]
    variables = compare_results(paths[0], paths[1], rtol, atol)
    verdict = overall(variables)
    if as_json:
        _print_json([run.id for run in runs], difference, verdict, variables)
    else:
        _print_results(verdict, variables)
    context.exit(1 if verdict is Verdict.DIFFERENT else 0)


def _print_runs(made: Sequence[Manifest]) -> None:
    from hpckit.analyse.tables import Column, Table
    from hpckit.analyse.values import local_time
    from hpckit.cli.console import print_table

    columns = [Column(""), Column("run"), Column("state"), Column("when", optional=True)]
    rows = [
        [letter, manifest.id, str(manifest.effective_state()), local_time(manifest.created)]
        for letter, manifest in zip("AB", made, strict=True)
    ]
    print_table(Table(columns, rows))


def _print_difference(difference: RunDifference) -> None:
    from hpckit.cli.console import print_facts

    click.echo()
    print_facts(
        [
            *_facts("code", difference.code),
            *_facts("parameters", difference.parameters),
            *_facts("environment", difference.environment),
            *_facts("packages", difference.packages),
        ]
    )
    if difference.job_diff:
        click.echo()
        for line in difference.job_diff[:DIFF_LINES]:
            click.echo(line)
        if len(difference.job_diff) > DIFF_LINES:
            click.echo(f"… and {len(difference.job_diff) - DIFF_LINES} lines more (--json has all)")


def _facts(name: str, changes: Sequence[Change]) -> list[tuple[str, str]]:
    texts = [str(change) for change in changes] or ["the same"]
    return list(zip((name, *[""] * len(texts)), texts, strict=False))


def _print_results(verdict: Verdict, variables: Sequence[VariableDifference]) -> None:
    from hpckit.analyse.compare_results import Verdict
    from hpckit.analyse.tables import difference_table
    from hpckit.cli.console import print_facts, print_table

    tally = ", ".join(
        f"{count} {kind}"
        for kind in Verdict
        if (count := sum(v.verdict is kind for v in variables)) and kind is not verdict
    )
    click.echo()
    own = sum(v.verdict is verdict for v in variables)
    rest = f" ({tally})" if tally else ""
    print_facts([("results", f"{verdict}: {own} of {len(variables)} variables{rest}")])
    table = difference_table(variables)
    if table.rows:
        click.echo()
        print_table(table)


def _print_json(
    ids: Sequence[str],
    difference: RunDifference,
    verdict: Verdict,
    variables: Sequence[VariableDifference],
) -> None:
    from hpckit.analyse.values import jsonable

    found: dict[str, Any] = {
        "a": ids[0],
        "b": ids[1],
        **asdict(difference),
        "results": {"verdict": str(verdict), "variables": [asdict(v) for v in variables]},
    }
    click.echo(json.dumps(jsonable(found), indent=1, allow_nan=False))
