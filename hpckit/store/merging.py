"""How two results of a farm become one, as its job says."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hpckit.errors import ReduceError
from hpckit.spec.job import Job
from hpckit.store.reducible import normal


class Merge:
    """Merges two values in normal form; None is a task that had nothing to add."""

    def __init__(self, function: Callable[[Any, Any], Any]) -> None:
        self.function = function

    @classmethod
    def of(cls, job: Job) -> Merge | None:
        """Return what merges the results of a job, None if each is kept."""
        return None if job.reduce is None else cls(job.reduce)

    @property
    def name(self) -> str:
        """The function's name."""
        return str(getattr(self.function, "__name__", repr(self.function)))

    def __call__(self, left: Any, right: Any) -> Any:
        """Return the merged value; those that were merged may be changed by it.

        Raises
        ------
        ReduceError
            The job's function raises, or returns what cannot be stored.
        """
        if left is None or right is None:
            return right if left is None else left
        try:
            merged = self.function(left, right)
        except Exception as error:
            raise self._error(left, right, f"raised {_told(error)}") from error
        if type(merged) is float:
            return merged
        if merged is None:
            raise self._error(left, right, "returned None: it must return the merged value")
        try:
            return normal(merged, copy=False)
        except TypeError as error:
            raise self._error(left, right, f"returned what is no result: {error}") from None

    def _error(self, left: Any, right: Any, what: str) -> ReduceError:
        kinds = f"{type(left).__name__}, {type(right).__name__}"
        return ReduceError(f"reduce: {self.name}({kinds}) {what}")


def _told(error: Exception) -> str:
    told = "".join(traceback.format_exception_only(error)).strip().splitlines()[-1]
    frames = traceback.extract_tb(error.__traceback__)[1:]
    return (
        f"{told} ({Path(frames[-1].filename).name}, line {frames[-1].lineno})" if frames else told
    )
