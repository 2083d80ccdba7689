"""The tasks of a farm as rows of values."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hpckit.analyse.variables import Variable, row_windows
from hpckit.errors import StoreError, UsageError
from hpckit.store.block import TaskState
from hpckit.store.blockfile import DETAILS, BlockFile
from hpckit.store.reading import reading
from hpckit.store.rundir import RunDir
from hpckit.store.segments import list_segments

Row = dict[str, Any]


def rows(variables: Mapping[str, Variable], names: Sequence[str], stop: int) -> Iterator[Row]:
    """Yield the first `stop` tasks: ``task``, ``task_state``, then the variables `names`.

    An absent value is None; arrays are NumPy's.
    """
    chosen = [variables[name] for name in names]
    states = variables["task_state"]
    for start, end in row_windows(chosen, 0, stop):
        columns = {v.name: v.column(start, end).rows() for v in chosen}
        for offset, state in enumerate(states.column(start, end).values.tolist()):
            values = {name: _plain(column[offset]) for name, column in columns.items()}
            state_name = TaskState(state).name.lower()
            yield {"task": start + offset, "task_state": state_name, **values}


def parameters(variables: Mapping[str, Variable]) -> list[str]:
    """Return the names of a farm's parameters."""
    return [name for name, variable in variables.items() if variable.is_parameter]


def results(variables: Mapping[str, Variable]) -> list[str]:
    """Return the names of the fields that a farm's tasks returned."""
    return [
        n
        for n, v in variables.items()
        if v.farm is not None and not v.is_parameter and n != "task_state"
    ]


def varies(variable: Variable) -> bool:
    """Tell whether a parameter takes more than one value; reads up to the first other one."""
    first = variable.column(0, 1).values
    for start, stop in row_windows([variable], 0, variable.rows):
        values = variable.column(start, stop).values
        other = values != first
        if values.dtype.kind in "fc":
            other &= ~(np.isnan(values) & np.isnan(first))
        if other.any():
            return True
    return False


def task_error(run: RunDir, index: int, count: int) -> str | None:
    """Return the traceback of a failed task from the newest file that has it; None if it is none.

    Raises
    ------
    UsageError
        There is no such task.
    StoreError
        A file does not read back.
    """
    if not 0 <= index < count:
        raise UsageError(f"task {index}: {run.id} has the tasks 0 to {count - 1}")
    paths = [run.results] if run.results.is_file() else []
    paths += [segment.path for segment in list_segments(run.segments)]
    for path in reversed(paths):
        state, error = _outcome(path, index)
        if state is not TaskState.MISSING:
            return error
    return None


def _outcome(path: Path, index: int) -> tuple[TaskState, str | None]:
    try:
        with reading(path) as file:
            source = BlockFile.checked(file)
            at = int(np.searchsorted(source.task, index))
            if at == len(source.task) or source.task[at] != index:
                return TaskState.MISSING, None
            state = TaskState(int(source.state[at]))
            if state is not TaskState.FAILED:
                return state, None
            return state, str(file[f"{DETAILS}/error"].asstr()[at])
    except StoreError:
        if path.is_file():
            raise
        # A segment that was merged into another one since it was listed.
        return TaskState.MISSING, None


def _plain(row: Any) -> Any:
    return row.item() if isinstance(row, np.ndarray) and row.ndim == 0 else row
