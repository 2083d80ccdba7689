"""What is to happen when a batch job's time is up or it does not end well."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import Field, field_validator

from hpckit.errors import SpecError
from hpckit.jobstates import JobState
from hpckit.spec.messages import listed, shown
from hpckit.spec.options import Options
from hpckit.spec.resources import Count, Resources
from hpckit.units import Memory, Walltime

DEFAULT_RETRIES = 3
CLASSES = tuple(
    str(state) for state in JobState if state.is_trouble and state is not JobState.CANCELLED
)
"""What may be tried again without asking: not what somebody cancelled."""

_DOUBLE = re.compile(r"double up to (?P<limit>\S.*)")

Tries = Annotated[int, Field(strict=True, ge=0)]


class Policy(Options):
    """What a job says about its own end; all of it is for submitted runs.

    Attributes
    ----------
    signal
        What Slurm sends when the walltime is nearly up.
    warning
        How long before; None takes a fitting time: see `seconds_before`.
    max_restarts
        How often a job whose time is up may go back to the queue by itself.
    on_out_of_memory, on_timeout
        ``double up to LIMIT``: what is missing is submitted again with twice the memory or
        walltime, up to the limit.
    on_node_fail
        ``exclude``: what is missing is submitted again, away from the nodes that died.
    retries
        By class, how often; naming one is enough to have it tried again.
    """

    signal: Literal["USR1", "USR2", "TERM"] = "USR1"
    warning: Walltime | None = None
    max_restarts: Tries = 5
    on_out_of_memory: str | None = None
    on_timeout: str | None = None
    on_node_fail: Literal["exclude"] | None = None
    retries: Mapping[str, Count] = Field(default_factory=dict)

    @field_validator("on_out_of_memory")
    @classmethod
    def _memory_limit(cls, text: str | None) -> str | None:
        if text is not None:
            _limit(text, Memory, "double up to 64G")
        return text

    @field_validator("on_timeout")
    @classmethod
    def _walltime_limit(cls, text: str | None) -> str | None:
        if text is not None:
            _limit(text, Walltime, "double up to 24h")
        return text

    @field_validator("retries")
    @classmethod
    def _classes(cls, retries: Mapping[str, int]) -> Mapping[str, int]:
        for name in retries:
            if name not in CLASSES:
                raise ValueError(
                    f"{shown(name)} is no class of failure; there are {listed(CLASSES)}"
                )
        return retries

    def require_fitting(self, asked: Resources) -> None:
        """See that what is to grow is asked for.

        Raises
        ------
        SpecError
            It is not, so that the policy would have no effect.
        """
        if self.on_out_of_memory and not (asked.mem or asked.mem_per_cpu):
            raise SpecError("has no mem to double: ask for some", key="on_out_of_memory")
        if self.on_timeout and asked.walltime is None:
            raise SpecError("has no walltime to double: ask for one", key="on_timeout")

    def seconds_before(self, walltime: int | None) -> int:
        """Return how long before the end the warning comes.

        What the policy says, but half the walltime at most; else a quarter of it, two minutes
        at most.
        """
        if self.warning is not None:
            return int(self.warning if walltime is None else min(self.warning, walltime // 2))
        return 120 if walltime is None else max(min(120, walltime // 4), 1)

    def tries(self, state: JobState) -> int:
        """Return how often what ended so is submitted again by itself."""
        named = {
            JobState.OUT_OF_MEMORY: self.on_out_of_memory,
            JobState.TIMEOUT: self.on_timeout,
            JobState.NODE_FAIL: self.on_node_fail,
        }
        return self.retries.get(str(state), DEFAULT_RETRIES if named.get(state) else 0)

    def excludes(self, state: JobState) -> bool:
        """Tell whether to keep off the nodes of jobs that ended so."""
        return state is JobState.NODE_FAIL and self.on_node_fail == "exclude"

    def grown(self, asked: Resources, state: JobState) -> Resources | None:
        """Return what to ask for after jobs that ended so; None if the limit is reached."""
        if state is JobState.OUT_OF_MEMORY and self.on_out_of_memory:
            return self._with_more_memory(asked, self.on_out_of_memory)
        if state is JobState.TIMEOUT and self.on_timeout and asked.walltime is not None:
            limit = _limit(self.on_timeout, Walltime, "")
            more = min(2 * asked.walltime, limit)
            return asked.updated(walltime=Walltime(more)) if more > asked.walltime else None
        return asked

    @staticmethod
    def _with_more_memory(asked: Resources, text: str) -> Resources | None:
        limit = _limit(text, Memory, "")
        for name in ("mem", "mem_per_cpu"):
            now = getattr(asked, name)
            if now:
                more = min(2 * now, limit)
                return asked.updated(**{name: Memory(more)}) if more > now else None
        return None


def _limit(text: str, unit: type[Memory] | type[Walltime], example: str) -> int:
    match = _DOUBLE.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"{shown(text)} is not allowed; a limit, such as {example!r}")
    return int(unit(match["limit"]))
