"""What `hpckit gpu report` prints."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from hpckit.analyse.tables import Column, Table
from hpckit.cli.console import print_facts, print_table
from hpckit.units import binary

if TYPE_CHECKING:
    from hpckit.analyse.gpus import GpuUse, KernelUse

HEADINGS = ("calls", "seconds", "GB/s", "of copy", "GFLOP/s", "of peak", "registers", "spilled")


def print_report(id: str, use: GpuUse, compared: str | None) -> None:
    """Print facts, the table of kernels, and the sentence."""
    first = use.cards[0]
    facts = [("run", id)]
    names = sorted({card["name"] for card in use.cards})
    count = len({(card["host"], card["uuid"]) for card in use.cards})
    facts.append(("cards", f"{count} x {', '.join(names)}"))
    facts.append(("driver, toolkit", f"{first['driver']}, {first['toolkit']}"))
    facts.append(("most memory", binary(max(card["peak_bytes"] for card in use.cards))))
    if ceilings := first["ceilings"]:
        facts.append(("measured", _ceilings(ceilings)))
    print_facts(facts)
    click.echo()
    columns = [Column("kernel"), *(Column(heading, number=True) for heading in HEADINGS)]
    print_table(Table(columns, [_row(kernel) for kernel in use.kernels]))
    click.echo()
    click.echo(use.sentence())
    if compared is not None:
        click.echo(compared)


def _ceilings(ceilings: dict[str, float]) -> str:
    copy, to_card = ceilings["bytes_per_second"], ceilings["to_card_bytes_per_second"]
    return (
        f"copy {copy / 1e9:.4g} GB/s, from the host {to_card / 1e9:.4g} GB/s, "
        f"float32 {ceilings['float32_per_second'] / 1e9:.4g} GFLOP/s, "
        f"float64 {ceilings['float64_per_second'] / 1e9:.4g} GFLOP/s"
    )


def _row(kernel: KernelUse) -> list[str]:
    seconds = kernel.seconds or 1.0
    return [
        kernel.name,
        str(kernel.calls),
        f"{kernel.seconds:.3g}",
        f"{kernel.nbytes / seconds / 1e9:.4g}" if kernel.nbytes else "",
        _part(kernel.of_bandwidth),
        f"{kernel.flops / seconds / 1e9:.4g}" if kernel.flops else "",
        _part(kernel.of_roof),
        str(kernel.registers or ""),
        str(kernel.spilled),
    ]


def _part(part: float | None) -> str:
    return "" if part is None else f"{part:.0%}" if part >= 0.1 else f"{part:.1%}"
