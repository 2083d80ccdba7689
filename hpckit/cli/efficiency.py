"""hpckit efficiency: what a submitted run used of what it asked for."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from hpckit.cli.gathering import ACCOUNTING, ELEMENT, gathered
from hpckit.cli.options import json_option, output_option, run_argument
from hpckit.jobstates import JobState
from hpckit.spec.messages import counted

if TYPE_CHECKING:
    from hpckit.analyse.efficiency import Measure, Use
    from hpckit.analyse.suggestion import Suggestion

ROWS = 10
UNKNOWN = "unknown"
DRIVERS_ALONE = "these are the numbers of the driver's job; its workers' jobs are not added up here"


@click.command(help="Compare what a submitted run used with what it asked for.")
@run_argument
@click.option("--all", "everything", is_flag=True, help=f"All jobs  [default: the {ROWS} idlest]")
@output_option
@json_option
def command(run: str, everything: bool, output: Path | None, as_json: bool) -> None:
    """Print CPU time, memory and walltime, used and asked for, and a better request."""
    from hpckit.analyse.efficiency import measures
    from hpckit.analyse.suggestion import suggestions
    from hpckit.cli.asking import find_settled
    from hpckit.store import manifest as manifests

    found = find_settled(run, output)
    manifest = manifests.read(found.manifest)
    uses, why = gathered(found, manifest)
    is_driver = manifest.elastic is not None
    overall = measures(uses)
    # What a driver uses says nothing of the tasks, which are in other jobs.
    suggested = [] if is_driver else suggestions(uses, manifest.job.resources)
    facts = [("run", manifest.id), ("state", str(manifest.effective_state()))]
    facts += [("jobs", _jobs(uses)), ("known from", _source(uses, why))]
    facts += [("note", note) for note in _notes(uses, overall)]
    facts += [("note", DRIVERS_ALONE)] if is_driver else []
    if as_json:
        _print_json(dict(facts), uses, overall, suggested)
        return
    _print_overall(facts, uses, overall)
    if len(uses) > 1:
        _print_jobs(uses, len(uses) if everything else ROWS)
    if not is_driver:
        _print_suggested(uses, suggested)


def _jobs(uses: Sequence[Use]) -> str:
    """Say how many there are, of how many submissions, and how they stand."""
    states = Counter(str(use.state) for use in uses)
    said = ", ".join(f"{count} {state}" for state, count in states.items())
    sessions = len({use.session for use in uses})
    again = f" of {sessions} submissions" if sessions > 1 else ""
    return f"{counted(len(uses), 'job' if uses[0].element is None else 'element')}{again}: {said}"


def _source(uses: Sequence[Use], why: str | None) -> str:
    """Say where the numbers are from, and why not from accounting."""
    accounted = any(use.source == ACCOUNTING for use in uses)
    lost = (why or "it does not know these jobs, or not yet").partition(";")[0]
    texts = ["Slurm's accounting" if accounted else f"not Slurm's accounting ({lost})"]
    if told := sum(use.cpu_source == ELEMENT for use in uses):
        texts.append(f"CPU time of {told} as the elements told it themselves")
    if told := sum(use.memory_source == ELEMENT for use in uses):
        texts.append(f"memory of {told} estimated from the largest process")
    return "; ".join(texts)


def _notes(uses: Sequence[Use], overall: Sequence[Measure]) -> Iterator[str]:
    """Yield what keeps the numbers from being the whole truth."""
    unended = sum(not use.state.has_ended for use in uses)
    if unended:
        yield (
            f"{unended} of {len(uses)} have not ended: these are the numbers so far; Slurm "
            "knows CPU time and memory when a step has ended"
        )
    ended = [use for use in uses if use.state.has_ended and use.seconds]
    silent = sum(use.cpu_seconds is None or use.peak_bytes is None for use in ended)
    if silent:
        yield f"of {silent} that ended not all was gathered, or has not reached accounting yet"
    if any(use.cpu is not None and use.cpu_is_least for use in uses):
        yield "≥ is of what was killed or requeued: some of its CPU time may not have been seen"
    if (overall[1].most or 0.0) > 1.0:
        yield "more memory than there was: what processes share counts in each of them"


def _print_overall(
    facts: Sequence[tuple[str, str]], uses: Sequence[Use], overall: Sequence[Measure]
) -> None:
    from hpckit.analyse.tables import Column, Table
    from hpckit.cli.console import print_facts, print_table

    print_facts(facts)
    click.echo()
    headings = ("used", "asked", "in all", "median", "most")[: 5 if len(uses) > 1 else 3]
    cpu, memory, walltime = overall
    least = any(use.cpu is not None and use.cpu_is_least for use in uses)
    rows = [
        ["CPU time of all", _time(cpu.used), _time(cpu.asked), *_parts(cpu, least)],
        ["memory of a node", _size(memory.used), _size(memory.asked), *_parts(memory)],
        ["longest walltime", _time(walltime.used), _time(walltime.asked), *_parts(walltime)],
    ]
    columns = [Column(""), *(Column(heading, number=True) for heading in headings)]
    print_table(Table(columns, [row[: len(columns)] for row in rows]))


def _parts(measure: Measure, is_least: bool = False) -> list[str]:
    parts = (measure.overall, measure.median, measure.most)
    return [_part(part, is_least=is_least) for part in parts]


def _print_jobs(uses: Sequence[Use], limit: int) -> None:
    from hpckit.analyse.tables import Column, Table, without_empty
    from hpckit.cli.console import print_table

    idlest = sorted(uses, key=lambda use: -use.idle_seconds)[:limit]
    again = len({use.session for use in uses}) > 1
    columns = [Column("job"), Column("submission", optional=True, number=True), Column("state")]
    names = ("runs", "CPU", "idle", "memory", "of", "walltime", "of")
    columns += [Column(name, number=True, optional=name == "of") for name in names]
    rows = [
        [
            use.id,
            str(use.session) if again else "",
            str(use.state),
            str(use.attempts) if use.attempts > 1 else "",
            _part(use.cpu, is_least=use.cpu_is_least),
            UNKNOWN if use.cpu is None else "≤" * use.cpu_is_least + _time(use.idle_seconds),
            _part(use.memory),
            _size(use.asked_bytes),
            _part(use.walltime),
            _time(use.limit),
        ]
        for use in idlest
    ]
    click.echo()
    print_table(without_empty(Table(columns, rows)))
    if len(idlest) < len(uses):
        click.echo(f"… and {len(uses) - len(idlest)} more, which wasted less CPU time: --all")


def _print_suggested(uses: Sequence[Use], suggested: Sequence[Suggestion]) -> None:
    from hpckit.cli.console import print_heading

    click.echo()
    good = any(use.state is JobState.COMPLETED for use in uses)
    if not suggested:
        click.echo(
            "nothing to suggest: what it asks for is about right"
            if good
            else "nothing to suggest: no job has ended well yet"
        )
        return
    print_heading("suggested for the job")
    width = max(len(suggestion.line) for suggestion in suggested)
    for one in suggested:
        asked = f"instead of {one.asked}: " if one.asked else ""
        click.echo(f"  {one.line.ljust(width)}  # {asked}{one.why}")


def _print_json(
    facts: dict[str, str],
    uses: Sequence[Use],
    overall: Sequence[Measure],
    suggested: Sequence[Suggestion],
) -> None:
    found = {
        "id": facts["run"],
        "state": facts["state"],
        "known_from": facts["known from"],
        "unended": sum(not use.state.has_ended for use in uses),
        **{measure.name: asdict(measure) for measure in overall},
        "jobs": [use.to_json() for use in uses],
        "suggestions": [{**asdict(one), "line": one.line} for one in suggested],
    }
    click.echo(json.dumps(found, indent=1, allow_nan=False))


def _part(part: float | None, *, is_least: bool = False) -> str:
    if part is None:
        return UNKNOWN
    text = "<1%" if 0 < part < 0.01 else f"{part:.0%}"
    return f"≥{text}" if is_least else text


def _time(seconds: float | None) -> str:
    from hpckit.analyse.values import duration

    return UNKNOWN if seconds is None else duration(seconds)


def _size(size: float | None) -> str:
    if size is None:
        return UNKNOWN
    return f"{size / 1024**2:.0f}M" if size < 10_000 * 1024**2 else f"{size / 1024**2 / 1024:.1f}G"
