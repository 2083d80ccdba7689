"""How a farm's function is called for a task, and what it may return."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from itertools import repeat
from typing import Any, TypeAlias

from hpckit.errors import HpckitError
from hpckit.run.context import Task, tasks_on
from hpckit.run.gpu.wish import NONE, Wish
from hpckit.run.reducing import NOTHING
from hpckit.run.timelimit import TaskTimeout
from hpckit.run.tracebacks import own_traceback
from hpckit.spec.command import Command
from hpckit.spec.job import Job
from hpckit.spec.names import FARM_VARIABLES
from hpckit.spec.sweep import Sweep
from hpckit.store.merging import Merge
from hpckit.store.reducible import is_table, normal
from hpckit.store.rundir import RunDir
from hpckit.store.storable import storable

Point: TypeAlias = tuple[Any, ...]
Row: TypeAlias = Any
"""A number by itself, which is the field `RESULT`, or a dict of fields."""

RESULT = "result"
"""The field of a task that returns a value without a name."""

NUMBERS = frozenset({int, float, bool, complex})
"""Types whose values never change, so that they are looked at a batch at a time."""

_INT64 = (-(2**63), 2**63 - 1)
_AS_THEY_ARE = frozenset({float, bool, complex, type(None)})


class Caller:
    """Calls a farm's function.

    Attributes
    ----------
    call
        Calls it for a task's index and its parameters, in the order of the signature.
    is_async
        Whether `call` returns a coroutine.
    plain
        The types of what it may return that `row` need not look at.
    merge
        Merges the results of two tasks; None where each is kept.
    """

    def __init__(self, job: Job, sweep: Sweep, seed: int, run: RunDir, wish: Wish = NONE) -> None:
        self.sweep = sweep
        self.seed = seed
        self.is_async = job.is_async
        self.names = tuple(param.name for param in job.params)
        self._task = tasks_on(wish) if wish.count else Task
        self.call = self._call(job, run)
        self.merge = Merge.of(job)
        self.plain = frozenset() if self.merge or RESULT in sweep.names else NUMBERS
        self._known: frozenset[str] = frozenset()

    def points(self, indices: Sequence[int]) -> Iterable[Point]:
        """Return the parameters of some tasks."""
        if not self.names:
            return repeat((), len(indices))
        columns = self.sweep.columns(indices)
        return zip(*(columns[name] for name in self.names), strict=True)

    def row(self, returned: Any) -> Row:
        """Return what a task returned as a row; what may change is copied.

        Raises
        ------
        TypeError
            It cannot be stored.
        """
        if self.merge is not None:
            return self._to_merge(returned)
        if returned is None:
            return {}
        if not isinstance(returned, dict):
            returned = dict(returned) if isinstance(returned, Mapping) else {RESULT: returned}
        if not returned.keys() <= self._known:
            self._check_names(returned)
        return {
            name: value
            if (kind := type(value)) in _AS_THEY_ARE
            or (kind is int and _INT64[0] <= value <= _INT64[1])
            else storable(name, value)
            for name, value in returned.items()
        }

    def _call(self, job: Job, run: RunDir) -> Callable[[int, Point], Any]:
        if isinstance(job.body, Command):
            from hpckit.run.command import run_command

            return self._by_name(partial(run_command, job.body, run))
        function = job.body
        if any(p.kind is p.KEYWORD_ONLY for p in inspect.signature(function).parameters.values()):
            return self._by_name(function if job.takes_context else _without_context(function))
        if not job.takes_context:
            return lambda index, point: function(*point)
        names, seed, task = self.names, self.seed, self._task
        return lambda index, point: function(task(index, dict(zip(names, point)), seed), *point)  # noqa: B905

    def _by_name(self, function: Callable[..., Any]) -> Callable[[int, Point], Any]:
        def call(index: int, point: Point) -> Any:
            params = dict(zip(self.names, point, strict=True))
            return function(self._task(index, params, self.seed), **params)

        return call

    def _to_merge(self, returned: Any) -> Any:
        if type(returned) is float:
            return returned
        value = normal(returned, copy=True)
        if isinstance(value, dict) and not is_table(value) and not value.keys() <= self._known:
            self._check_names(value)
        return NOTHING if value is None else value

    def _check_names(self, returned: Mapping[str, Any]) -> None:
        for name in returned:
            if not isinstance(name, str) or not name or "/" in name:
                raise TypeError(f"field {name!r}: a name is a string without a slash")
            if name in FARM_VARIABLES or name in self.sweep.names:
                what = "is a parameter" if name in self.sweep.names else "is hpckit's own"
                raise TypeError(f"field {name!r}: the name {what}: return it under another one")
            storable(name, None)
        self._known |= returned.keys()


def checked(rows: list[Row], errors: dict[int, str]) -> list[Row]:
    """Return a batch's rows as `hpckit.store.block.make_block` takes them.

    Numbers of one type stay by themselves; a task whose integer is too large has failed.
    """
    kinds = set(map(type, rows))
    if len(kinds) == 1 and kinds <= NUMBERS and (int not in kinds or _fit(rows)):
        return rows
    for position, row in enumerate(rows):
        if type(row) in NUMBERS:
            try:
                rows[position] = {RESULT: storable(RESULT, row)}
            except TypeError as error:
                rows[position] = None
                errors[position] = told(error)
    return rows


def told(error: BaseException) -> str:
    """Return the traceback; what hpckit itself raises says it all."""
    return str(error) if isinstance(error, HpckitError | TaskTimeout) else own_traceback(error)


def _fit(numbers: list[int]) -> bool:
    return _INT64[0] <= min(numbers) and max(numbers) <= _INT64[1]


def _without_context(function: Callable[..., Any]) -> Callable[..., Any]:
    return lambda task, **params: function(**params)
