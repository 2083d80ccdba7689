"""What is known of the jobs of a submitted run: from accounting, and from their own words."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from hpckit.analyse.efficiency import Use
from hpckit.errors import UsageError
from hpckit.jobstates import JobState

if TYPE_CHECKING:
    from hpckit.store.manifest import Manifest
    from hpckit.store.rundir import RunDir
    from hpckit.store.shares import ElementEnd
    from hpckit.store.submission import Submission
    from hpckit.submit.used import JobUsed

ACCOUNTING, ELEMENT = "accounting", "element"
"""Who says what a job used."""

MIB = 1024**2
DRIVER_BYTES = 100 * MIB
"""About what the process holds that an element's workers work for."""


def gathered(run: RunDir, manifest: Manifest) -> tuple[list[Use], str | None]:
    """Return what each job of each session used, and why accounting does not know it.

    Raises
    ------
    UsageError
        No job of it was ever submitted.
    """
    from hpckit.analyse.status import reference
    from hpckit.store.shares import element_ends
    from hpckit.submit import used

    ids = [job for submission in manifest.submissions for job in submission.ids]
    if not ids:
        raise UsageError(
            f"{run.id}: it was never in a scheduler's queue, so there is nothing to compare with: "
            f"`hpckit show {reference(run)}` has its time and results, and `usage` in "
            f"{run.manifest.name} its CPU time and memory"
        )
    before = datetime.fromisoformat(manifest.created).date() - timedelta(days=1)
    known, why = used.gathered(ids, str(before))
    ends: dict[tuple[int, int | None], list[ElementEnd]] = defaultdict(list)
    for end in element_ends(run):
        ends[end.session, end.element].append(end)
    uses = []
    for use in (use for submission in manifest.submissions for use in _asked(submission)):
        if use.id in known:
            use = _accounted(use, known[use.id])
        uses.append(_with_word(use, ends[use.session, use.element]))
    return uses, why


def _asked(submission: Submission) -> Iterator[Use]:
    """Yield each job with what it asked for; what it used is not known yet."""
    from hpckit.render.batch import together

    asked = together(submission.resources, submission.slots or submission.workers or 1)
    cpus, nodes = asked.cpus_per_task * asked.ntasks, asked.nodes or 1
    for job in submission.jobs or ():
        for index, id in enumerate(job.ids()):
            yield Use(
                id=id,
                submission=submission,
                element=None if job.elements is None else job.first + index,
                cpus=cpus,
                nodes=nodes,
                limit=asked.walltime,
                asked_bytes=asked.mem or (asked.mem_per_cpu or 0) * cpus // nodes or None,
            )


def _accounted(use: Use, known: JobUsed) -> Use:
    """Fill in what accounting knows."""
    facts = {name: value for name, value in vars(known).items() if value is not None}
    if known.cpu_seconds is not None:
        facts |= {"cpu_source": ACCOUNTING}
    if known.peak_bytes is not None:
        facts |= {"memory_source": ACCOUNTING}
    return replace(use, source=ACCOUNTING, **facts)


def _with_word(use: Use, ends: Sequence[ElementEnd]) -> Use:
    """Fill in what an element told each time it ended.

    It knows the CPU time of its workers, which Slurm may not: nobody waits for them. Of memory it
    knows the largest process: that its workers are as large, and the process that they work for
    as that usually is, makes an estimate.
    """
    if not ends:
        return replace(use, cpu_is_least=use.cpu_is_least or use.submission.workers is not None)
    told: dict[str, Any] = {}
    if ends[-1].done and not use.state.has_ended:
        # Accounting lags behind.
        use = replace(use, state=JobState.COMPLETED)
    seconds = sum(end.seconds for end in ends)
    if use.source is None:
        told |= {"source": ELEMENT, "attempts": len(ends), "seconds": seconds}
        told |= {"longest": max(end.seconds for end in ends)}
        told |= {"state": JobState.COMPLETED if ends[-1].done else JobState.TIMEOUT}
    cpu_seconds = sum(end.cpu_seconds for end in ends)
    if cpu_seconds > (use.cpu_seconds or 0.0):
        is_whole = use.source is not None and use.state.has_ended
        given = use.cpu_seconds_given if is_whole else use.cpus * seconds
        told |= {"cpu_source": ELEMENT, "cpu_seconds": cpu_seconds, "cpu_seconds_given": given}
    if use.peak_bytes is None:
        largest = max(end.peak_bytes for end in ends)
        estimate = largest * use.at_once + min(largest, DRIVER_BYTES)
        told |= {"memory_source": ELEMENT, "peak_bytes": estimate}
    return replace(use, **told)
