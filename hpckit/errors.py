"""The exceptions of hpckit, and the exit code that each one means.

    HpckitError                 1   the run failed, or something of hpckit's own did
    ├── UsageError              2   what the user gave cannot be used: one line, no traceback
    │   ├── SpecError           2   ... in a file or under a key: names both, and what is allowed
    │   └── BusyError           2   another process works on the run
    ├── StoreError              1   a run directory or a results file cannot be written or read
    ├── LaunchError             1   ranks or a program could not be started as they were asked for
    ├── ReduceError             1   the results of a farm's tasks cannot be merged into one
    └── Interrupted           130   the user or the scheduler ended the run; what was done is sealed

A user sees `str(error)` and nothing else. The message says what failed, with which
value, what is allowed and what to do.
"""

from __future__ import annotations

from pathlib import Path


class HpckitError(Exception):
    """Base of all errors that hpckit raises on purpose."""

    exit_code = 1


class UsageError(HpckitError):
    """A command line, a job file or an environment that cannot be used as it is."""

    exit_code = 2


class SpecError(UsageError):
    """A wrong value: where it stands, what it is, and what would be right.

    Parameters
    ----------
    problem
        One sentence: the value, and what is allowed.
    key
        The parameter or the setting it stands under.
    file, line
        The file it came from, where there is one.
    """

    def __init__(
        self,
        problem: str,
        *,
        key: str | None = None,
        file: Path | str | None = None,
        line: int | None = None,
    ) -> None:
        self.problem = problem
        self.key = key
        self.file = file
        self.line = line
        super().__init__(problem)

    def __str__(self) -> str:
        place = "" if self.file is None else str(self.file)
        if self.line is not None:
            place += f":{self.line}"
        return ": ".join(part for part in (place, self.key, self.problem) if part)


class BusyError(UsageError):
    """A run that another process works on."""


class StoreError(HpckitError):
    """A run directory or results file that cannot be written, or does not read back."""


class LaunchError(HpckitError):
    """Ranks or a program that did not start as asked."""


class ReduceError(HpckitError):
    """Results that the job's own function does not merge into one that can be stored."""


class Interrupted(HpckitError):
    """The run was ended from outside after its finished work had been sealed."""

    exit_code = 130
