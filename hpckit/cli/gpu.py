"""hpckit gpu: which cards there are, what a run did on some, and cubins for others."""

from __future__ import annotations

import json
from pathlib import Path

import click

from hpckit.cli.options import json_option, output_option, run_argument


@click.group(help="GPUs: those that are here, what a run did on them, kernels for them.")
def command() -> None:
    """Work with GPUs."""


@command.command("list", help="List the cards that this process sees, and who has them.")
@json_option
def list_(as_json: bool) -> None:
    """Print name, UUID, capability and memory of each card."""
    from hpckit.analyse.tables import Column, Table
    from hpckit.cli.console import print_table
    from hpckit.run.gpu.devices import devices
    from hpckit.units import binary

    found = devices()
    if as_json:
        click.echo(json.dumps([vars(each) for each in found], indent=1))
        return
    columns = [
        Column("card", number=True),
        *map(Column, ("name", "uuid", "capability", "memory", "taken by")),
    ]
    rows = [
        [str(n), d.name, d.uuid, d.capability, binary(d.memory_bytes), ", ".join(d.holders)]
        for n, d in enumerate(found)
    ]
    print_table(Table(columns, rows))


@command.command(help="Say what a run did on GPUs, and what bounded it.")
@run_argument
@click.option("--against", "other", metavar="RUN", help="A run of the same on processors.")
@click.option("--plot", type=click.Path(path_type=Path), help="Draw the roofline into this file.")
@output_option
@json_option
def report(
    run: str, other: str | None, plot: Path | None, output: Path | None, as_json: bool
) -> None:
    """Print cards, kernels and the sentence on what bounded the run."""
    from hpckit.analyse.gpus import against, gpu_use
    from hpckit.cli.asking import find_settled
    from hpckit.store import manifest as manifests

    found = find_settled(run, output)
    manifest = manifests.read(found.manifest)
    use = gpu_use(manifest)
    compared = None
    if other is not None:
        compared = against(use, manifest, manifests.read(find_settled(other, output).manifest))
    if plot is not None:
        from hpckit.analyse.roofline import plot_roofline

        plot_roofline(use, found.id, plot)
    if as_json:
        told = {"sentence": use.sentence(), "against": compared}
        click.echo(json.dumps(use.as_dict() | told, indent=1))
        return
    from hpckit.cli.gpu_report import print_report

    print_report(found.id, use, compared)
    if plot is not None:
        click.echo(plot)


@command.command(help="Compile kernels for cards that need not be here, to ship the cubins.")
@click.argument("sources", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--arch", "arches", multiple=True, required=True, metavar="sm_NN",
              help="A kind of card, such as sm_90; several times.")  # fmt: skip
@click.option("--into", type=click.Path(path_type=Path), required=True, help="A folder of cubins.")
@click.option("--nvcc-option", "options", multiple=True, metavar="OPTION",
              help="As the job gives it to gpu.kernel, such as -fmad=false.")  # fmt: skip
@json_option
def compile(
    sources: tuple[Path, ...],
    arches: tuple[str, ...],
    into: Path,
    options: tuple[str, ...],
    as_json: bool,
) -> None:
    """Compile files of kernels, and print what each kernel needs of a card."""
    from hpckit.analyse.tables import Column, Table
    from hpckit.cli.console import print_table
    from hpckit.run.gpu.shipping import ship

    rows = [row for source in sources for row in ship(source, arches, into, options)]
    if as_json:
        click.echo(json.dumps(rows, indent=1))
        return
    heads = ("source", "kernel", "arch", "registers", "spill_stores", "spill_loads", "shared_bytes")
    columns = [Column(head.replace("_", " "), number=n > 2) for n, head in enumerate(heads)]
    print_table(Table(columns, [[str(row[head]) for head in heads] for row in rows]))
