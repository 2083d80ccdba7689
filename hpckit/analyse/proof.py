"""Whether a run's repetition is the same, and if it is not, why that may be."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from hpckit.analyse.compare_results import (
    VariableDifference,
    Verdict,
    compare_results,
    overall,
)
from hpckit.analyse.compare_runs import Change, RunDifference, compare_runs
from hpckit.store.manifest import Manifest
from hpckit.store.rundir import RunDir

TELLING = ("image", "python", "implementation", "mpi", "cpu", "ranks", "cpus_per_task")
"""Of the environment, the likeliest first; beside variables about threads and the processor."""

VARIABLES = ("_NUM_THREADS", "_CORETYPE", "OMP_PLACES", "OMP_PROC_BIND", "PYTHONHASHSEED")

MOST_CAUSES = 10

NOTHING = (
    "nothing that the manifests record differs: the job itself may not be repeatable: random "
    "numbers that are not the run's own, the time, or threads that add up in any order"
)


@dataclass(frozen=True)
class Cause:
    """Something that differs between two runs, and decides results.

    Attributes
    ----------
    kind
        What it belongs to: code, parameters, environment, packages.
    """

    kind: str
    change: Change

    def __str__(self) -> str:
        return f"{self.kind}: {self.change}"


@dataclass(frozen=True)
class Proof:
    """How a repetition compares with the run that it repeats.

    Attributes
    ----------
    first, again
        Their ids.
    causes
        What may be why they differ, the likeliest first.
    """

    first: str
    again: str
    verdict: Verdict
    variables: Sequence[VariableDifference]
    causes: Sequence[Cause]
    rtol: float
    atol: float

    def lines(self) -> Iterator[str]:
        """Yield what there is to say."""
        if self.verdict is Verdict.IDENTICAL:
            yield f"identical to {self.first}, bit for bit"
        elif self.verdict is Verdict.EQUAL_WITHIN_TOLERANCE:
            yield f"equal to {self.first} within rtol={self.rtol:g}, atol={self.atol:g}"
        else:
            names = ", ".join(v.name for v in self.variables if v.verdict is Verdict.DIFFERENT)
            yield f"differs from {self.first} in {names}"
            yield from self._why()

    def _why(self) -> Iterator[str]:
        yield "what may be why:" if self.causes else NOTHING
        yield from (f"  {cause}" for cause in self.causes[:MOST_CAUSES])
        if len(self.causes) > MOST_CAUSES:
            yield f"  … and {len(self.causes) - MOST_CAUSES} more"
        yield f"all of it: hpckit diff {self.first} {self.again}"


def prove(
    first: RunDir, a: Manifest, again: RunDir, b: Manifest, rtol: float, atol: float
) -> Proof:
    """Compare a run with its repetition.

    Parameters
    ----------
    first, a
        The run, and its manifest.
    again, b
        The repetition, and its.
    rtol, atol
        Within which values count as equal.
    """
    variables = compare_results(first.results, again.results, rtol, atol)
    why = list(causes(compare_runs(first, a, again, b)))
    return Proof(first.id, again.id, overall(variables), variables, why, rtol, atol)


def causes(difference: RunDifference) -> Iterator[Cause]:
    """Yield what decides results and differs, the likeliest first."""
    for kind, changes in (("code", difference.code), ("parameters", difference.parameters)):
        yield from (Cause(kind, change) for change in changes)
    found = {change.name: change for change in difference.environment}
    threads = [name for name in found if any(part in name for part in VARIABLES)]
    yield from (Cause("environment", found[n]) for n in (*TELLING, *threads) if n in found)
    yield from (Cause("packages", change) for change in difference.packages)
