"""What to ask for the next time, from what submitted jobs used of what they asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from math import ceil

from hpckit.analyse.efficiency import Use, measures
from hpckit.jobstates import JobState
from hpckit.spec.messages import counted
from hpckit.spec.resources import Resources
from hpckit.units import KIB, Memory, Walltime

MEMORY_ROOM, TIME_ROOM, DOUBLE = 1.2, 1.25, 2.0
"""What is suggested, in parts of the most that was used, and of what was not enough."""

ENOUGH = 0.9
"""A change to more than this part of what was asked for is not worth while."""

IDLE, LONG_SECONDS = 0.5, 60.0
"""Fewer CPUs are suggested below this part of CPU time, in jobs that took at least so long: in
shorter ones starting counts for too much."""

LEAST_MEMORY, MEMORY_STEP, TIME_STEP = 100 * KIB**2, 50 * KIB**2, 300


@dataclass(frozen=True)
class Suggestion:
    """One line of a job file, or an option; `asked` is what it says now, or else what it got."""

    name: str
    value: str
    asked: str | None
    why: str

    @property
    def line(self) -> str:
        """The line itself."""
        return f"{self.name} {'' if self.name.startswith('-') else '= '}{self.value}"


def suggestions(uses: Iterable[Use], own: Resources) -> list[Suggestion]:
    """Return what a job file should say that says `own`, and does not.

    Jobs that were killed for want of memory or time only ever raise what they lacked: if any of
    the latest session was, nothing is lowered.
    """
    began = [u for u in uses if u.seconds]
    latest = max((u.session for u in began), default=0)
    last = [u for u in began if u.session == latest]
    killed = any(u.state in (JobState.OUT_OF_MEMORY, JobState.TIMEOUT) for u in last)
    lower = not killed and any(u.state is JobState.COMPLETED for u in began)
    cpus = _cpus(began, own) if lower else None
    memory = _memory(began, own, int(cpus.value) if cpus else own.cpus_per_task, lower=lower)
    found = (cpus, memory, _walltime(began, own, lower=lower), _workers(last))
    return [suggestion for suggestion in found if suggestion is not None]


def _cpus(uses: Sequence[Use], own: Resources) -> Suggestion | None:
    """Suggest fewer CPUs for a task if most of them idle."""
    fit = [u for u in uses if u.state is JobState.COMPLETED and u.cpu and not u.cpu_is_least]
    fit = [u for u in fit if u.longest >= LONG_SECONDS]
    overall = measures(fit)[0].overall
    if overall is None or overall >= IDLE:
        return None
    busy = max((u.cpu_seconds or 0.0) / (u.seconds * u.at_once) for u in fit)
    need = max(ceil(busy), 1)
    if need >= own.cpus_per_task:
        return None
    why = f"{busy:.2g} of them were busy at most"
    return Suggestion("cpus_per_task", str(need), str(own.cpus_per_task), why)


def _memory(uses: Sequence[Use], own: Resources, cpus: int, *, lower: bool) -> Suggestion | None:
    """Suggest the memory of a task, a node, or each of the CPUs that a task is to have."""
    amounts = [_memory_amount(use, own, cpus) for use in uses]
    least = 1 if own.mem_per_cpu else LEAST_MEMORY
    value, asked = _decided(amounts, MEMORY_ROOM, lambda n: _round(max(n, least)), lower=lower)
    said = own.mem_per_cpu or own.mem or asked
    if value is None or value == said:
        return None
    what = "a CPU" if own.mem_per_cpu else "a task" if uses[0].submission.workers else "a node"
    name = "mem_per_cpu" if own.mem_per_cpu else "mem"
    why = _why(amounts, f"{what} took up to", "went over it", _mebibytes)
    return Suggestion(name, f'"{Memory(value)}"', str(Memory(said)) if said else None, why)


def _round(size: int) -> int:
    step = KIB**3 if size > 2 * KIB**3 else MEMORY_STEP
    return -(-size // step) * step


def _memory_amount(use: Use, own: Resources, cpus: int) -> _Amount:
    asked_by = used_by = use.cpus / use.nodes * cpus / own.cpus_per_task
    if not own.mem_per_cpu:
        workers = use.submission.workers
        asked_by, used_by = float(workers or 1), float(use.at_once if workers else 1)
    asked = use.asked_bytes and use.asked_bytes / asked_by
    used = use.peak_bytes and use.peak_bytes / used_by
    was_short = use.state is JobState.OUT_OF_MEMORY
    # The peak is an upper estimate: what was not killed did do with what it had.
    return _Amount(use.session, min(used, asked) if used and asked else used, asked, was_short)


def _walltime(uses: Sequence[Use], own: Resources, *, lower: bool) -> Suggestion | None:
    """Suggest a walltime that the longest needs in one go."""
    amounts = [_Amount(u.session, u.seconds, u.limit, u.state is JobState.TIMEOUT) for u in uses]
    step = TIME_STEP
    value, asked = _decided(amounts, TIME_ROOM, lambda n: -(-n // step) * step, lower=lower)
    said = own.walltime or asked
    if value is None or value == said:
        return None
    why = _why(amounts, "the longest took", "ran out of it", lambda n: str(Walltime(ceil(n))))
    before = _minutes(said) if said else None
    return Suggestion("walltime", f'"{_minutes(value)}"', before, why)


def _workers(uses: Sequence[Use]) -> Suggestion | None:
    """Suggest fewer tasks at a time where an element has fewer."""
    tasks, workers = (uses[0].at_once, uses[0].submission.workers) if uses else (1, None)
    if workers is None or tasks >= workers:
        return None
    why = f"{counted(tasks, 'task')} is all that an element has"
    return Suggestion("--workers", str(tasks), str(workers), why)


@dataclass(frozen=True)
class _Amount:
    """What a job used of what it asked for, and whether it was killed for want of more."""

    session: int
    used: float | None
    asked: float | None
    was_short: bool


def _decided(
    amounts: Sequence[_Amount], room: float, rounded: Callable[[int], int], *, lower: bool
) -> tuple[int | None, int | None]:
    """Return how much to ask for, and what was asked for last; None is not known."""
    session = max((a.session for a in amounts), default=0)
    latest = [a for a in amounts if a.session == session]
    asked = max((int(a.asked) for a in latest if a.asked), default=None)
    needs = [a.used * room for a in amounts if a.used and not a.was_short]
    short = [(a.asked, a.session) for a in amounts if a.asked and a.was_short]
    needs += [had * (DOUBLE if when == session else room) for had, when in short]
    need = rounded(ceil(max(needs, default=0.0)))
    if not needs or asked is None:
        return need if needs and lower else None, asked
    if need > asked:
        too_little = any(a.was_short or (a.used or 0.0) > (a.asked or asked) for a in latest)
        return need if too_little else asked, asked
    return need if lower and need <= ENOUGH * asked else asked, asked


def _why(amounts: Sequence[_Amount], took: str, fell: str, text: Callable[[float], str]) -> str:
    short = sum(a.was_short for a in amounts)
    if short:
        return f"{short} of {counted(len(amounts), 'job')} {fell}"
    return f"{took} {text(max(a.used for a in amounts if a.used))}"


def _mebibytes(size: float) -> str:
    return f"{size / KIB**2:.0f}M"


def _minutes(seconds: int) -> str:
    hours, minutes = divmod(-(-seconds // 60), 60)
    return f"{hours}h" * bool(hours) + f"{minutes}m" * bool(minutes)
