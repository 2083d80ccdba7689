"""hpckit rerun: the same again, and whether it is."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import NoReturn

import click

from hpckit.cli.foreground import check_options, summarise, work
from hpckit.cli.options import output_option, run_argument
from hpckit.errors import UsageError
from hpckit.run.engines import ENGINES, limit_threads


@click.command(help="Repeat a run from its manifest, and say whether it is the same.")
@run_argument
@click.option("--engine", type=click.Choice(list(ENGINES)), help="Another engine than before.")
@click.option("--workers", type=click.IntRange(1), help="Another number of workers than before.")
@click.option("--ranks", type=click.IntRange(1), help="Another number of ranks than before.")
@click.option("--rtol", type=float, default=0.0, help="Relative difference that counts as equal.")
@click.option("--atol", type=float, default=0.0, help="Absolute difference that counts as equal.")
@output_option
def command(
    run: str,
    engine: str | None,
    workers: int | None,
    ranks: int | None,
    rtol: float,
    atol: float,
    output: Path | None,
) -> NoReturn:
    """Run again with the same job file, parameters and seed."""
    limit_threads(1)
    from hpckit.spec.load import load_file
    from hpckit.store import manifest as manifests
    from hpckit.store.create import create, stored_sweep
    from hpckit.store.rundir import find, require_results, runs_root

    first = find(run, runs_root(output))
    require_results(first)
    manifest = manifests.read(first.manifest)
    source = Path(manifest.job.source)
    loaded = load_file(first.job(source.suffix), source)
    check_options(loaded.job.kind, engine, workers, ranks)
    again = create(
        loaded,
        stored_sweep(loaded.job, first, manifest),
        root=first.path.parent,
        argv=sys.argv[1:],
        seed=manifest.job.seed,
        resources=manifest.job.resources,
        parent=manifest.id,
    )
    try:
        final = work(
            again,
            engine=engine or manifest.engine,
            workers=workers or manifest.workers,
            ranks=ranks or manifest.ranks,
        )
    except UsageError:
        shutil.rmtree(again.dir.path, ignore_errors=True)
        raise
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
