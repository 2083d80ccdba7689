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
    from hpckit.analyse.compare_results import Verdict
    from hpckit.analyse.proof import prove
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
    proof = prove(first, before, again.dir, final, rtol, atol)
    for line in proof.lines():
        click.echo(line)
    sys.exit(max(code, int(proof.verdict is Verdict.DIFFERENT)))
