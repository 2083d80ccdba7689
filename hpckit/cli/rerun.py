"""hpckit rerun: the same again, and whether it is."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, NoReturn

import click

from hpckit.cli.contained import enter_again, image_option, same_image
from hpckit.cli.foreground import summarise, work_new
from hpckit.cli.means import Means, means_options
from hpckit.cli.options import output_option, run_argument
from hpckit.threads import limit_threads


@click.command(help="Repeat a run from its manifest, and say whether it is the same.")
@run_argument
@means_options
@click.option("--ranks", type=click.IntRange(1), help="Another number of ranks than before.")
@click.option(
    "--rtol",
    type=click.FloatRange(0),
    default=0.0,
    help="Relative tolerance.",
)
@click.option(
    "--atol",
    type=click.FloatRange(0),
    default=0.0,
    help="Absolute tolerance.",
)
@image_option
@output_option
def command(
    run: str,
    rtol: float,
    atol: float,
    image: str | None,
    output: Path | None,
    **options: Any,
) -> NoReturn:
    """Run again with the same job file, parameters and seed."""
    limit_threads(1)
    from hpckit.cli.asking import find_settled
    from hpckit.store.create import changed_since, reopen, repeat
    from hpckit.store.rundir import require_results

    first = find_settled(run, output)
    require_results(first)
    original = reopen(first)
    before = original.manifest
    means = Means.taken_from(options).or_as_in(before)
    means.require_fitting(original.job, before.job.rules)
    for change in changed_since(original):
        click.echo(f"hpckit: {change} since {before.id}: its results may differ", err=True)
    root = first.path.parent if output is None else output
    contained = same_image(image, original)
    enter_again(original, contained, [root])
    again = repeat(original, root=root, argv=sys.argv[1:], image=contained)
    final = work_new(again, means)
    code = summarise(again, final)
    same = _compared(first.results, again.dir.results, rtol, atol)
    sys.exit(max(code, 0 if same else 1))


def _compared(a: Path, b: Path, rtol: float, atol: float) -> bool:
    """Print whether the results of two runs are the same; return it."""
    from hpckit.analyse.compare_results import Verdict, compare_results

    differences = compare_results(a, b, rtol, atol)
    verdicts = {difference.verdict for difference in differences}
    name = a.parent.name
    if verdicts <= {Verdict.IDENTICAL}:
        click.echo(f"identical to {name}, bit for bit")
        return True
    if Verdict.DIFFERENT not in verdicts:
        click.echo(f"equal to {name} within rtol={rtol:g}, atol={atol:g}")
        return True
    names = ", ".join(d.name for d in differences if d.verdict is Verdict.DIFFERENT)
    click.echo(f"differs from {name} in {names}")
    click.echo(f"what and why: hpckit diff {name} {b.parent.name}")
    return False
