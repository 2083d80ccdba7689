"""The points that a job is run at: a lazy product of axes."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from hpckit.errors import SpecError
from hpckit.spec.columns import Column, Listed
from hpckit.spec.grammar import parse_repeat, parse_value, quoted
from hpckit.spec.job import Job
from hpckit.spec.messages import shown
from hpckit.spec.table import read_table

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

MAX_TASKS = 100_000_000
REPEAT = "repeat"


@dataclass(frozen=True, slots=True)
class Axis:
    """Columns of equal length that move together: one parameter, or all those of a table."""

    columns: Mapping[str, Column]

    def __len__(self) -> int:
        return len(next(iter(self.columns.values())))


@dataclass(frozen=True, slots=True)
class Sweep:
    """The product of axes, the last one fastest; made by `Sweep.from_args`.

    Attributes
    ----------
    names
        The job's parameters in the signature's order, then ``repeat`` where it is used.
    axes
        In the order of the product.
    constants
        The value of each parameter that is on no axis: its default.
    assignments
        What the command line gave, by name; paths made absolute, so that `from_args` gives the same
        sweep from any directory.
    table
        Absolute path of the table, where there is one.
    """

    names: tuple[str, ...]
    axes: tuple[Axis, ...]
    constants: Mapping[str, Any]
    assignments: dict[str, str]
    table: Path | None = None
    _strides: tuple[int, ...] = field(default=(), repr=False)
    _size: int = field(default=1, repr=False)

    @classmethod
    def from_args(cls, job: Job, args: Sequence[str], table: Path | None = None) -> Self:
        """Make the sweep of a job that a command line asks for.

        Parameters
        ----------
        job
            Whose parameters they are.
        args
            ``name=value``, in the grammar of `hpckit.spec.grammar`; ``repeat=N`` among them.
        table
            A CSV file of points, which come before the other axes.

        Raises
        ------
        UsageError
            If the table cannot be read.
        SpecError
            For whatever else does not make a sweep of 1 to `MAX_TASKS` points: one point, for an
            spmd job.
        """
        given = _split(args)
        for name in given:
            if name != REPEAT:
                job.param(name)
        axes = [] if table is None else [_table_axis(job, table, given)]
        axes += [Axis({name: _column(job, name, text)}) for name, text in given.items()]
        strides = _strides(axes)
        _check_size(job, axes, strides[0])
        swept = {name: column for axis in axes for name, column in axis.columns.items()}
        return cls(
            names=(*(param.name for param in job.params), *([REPEAT] if REPEAT in given else [])),
            axes=tuple(axes),
            constants=_constants(job, swept),
            assignments={name: _anywhere(text, swept[name]) for name, text in given.items()},
            table=None if table is None else Path(table).absolute(),
            _strides=strides[1:],
            _size=strides[0],
        )

    def __len__(self) -> int:
        return self._size

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Return the job's parameters at one point.

        Raises
        ------
        IndexError
            If there is no such point.
        """
        place = index + self._size if index < 0 else index
        if not 0 <= place < self._size:
            raise IndexError(f"task {index} of a sweep with {self._size}")
        point = dict(self.constants)
        for axis, stride in zip(self.axes, self._strides, strict=True):
            at = place // stride % len(axis)
            point |= {name: column[at] for name, column in axis.columns.items()}
        return {name: point[name] for name in self.names if name != REPEAT}

    def columns(self, indices: Sequence[int] | range) -> dict[str, list[Any]]:
        """Return the parameters and ``repeat`` at many points, one list of Python values a name.

        Parameters
        ----------
        indices
            Points, in any order.

        Raises
        ------
        IndexError
            If one of them is not there.
        """
        places = _as_array(indices)
        if places.size and (places.min() < 0 or places.max() >= self._size):
            raise IndexError(f"indices beyond a sweep with {self._size} tasks")
        lists = {name: [value] * places.size for name, value in self.constants.items()}
        for axis, stride in zip(self.axes, self._strides, strict=True):
            at = places // stride % len(axis)
            lists |= {name: column.take(at) for name, column in axis.columns.items()}
        return {name: lists[name] for name in self.names}

    @property
    def varying(self) -> tuple[str, ...]:
        """The names that take more than one value."""
        swept = {name: column for axis in self.axes for name, column in axis.columns.items()}
        return tuple(name for name in self.names if name in swept and swept[name].varies)


def _split(args: Iterable[str]) -> dict[str, str]:
    given: dict[str, str] = {}
    for arg in args:
        name, equals, text = arg.partition("=")
        name = name.strip()
        if not equals or not name:
            raise SpecError(
                f"{shown(arg)} is no parameter; write name=value without spaces, as in T=1.5,2.0"
            )
        if name in given:
            raise SpecError("is given twice; write its values as one list, a,b,c", key=name)
        given[name] = text
    return given


def _table_axis(job: Job, table: Path, given: Mapping[str, str]) -> Axis:
    values = read_table(job, Path(table), limit=MAX_TASKS)
    for name in values:
        if name in given:
            raise SpecError(f"is given, and is a column of {table} too; leave out one", key=name)
    return Axis({name: Listed(column) for name, column in values.items()})


def _column(job: Job, name: str, text: str) -> Column:
    if name == REPEAT:
        return parse_repeat(text, limit=MAX_TASKS)
    return parse_value(job.param(name), text, limit=MAX_TASKS)


def _strides(axes: Sequence[Axis]) -> tuple[int, ...]:
    """Return the number of points, then for each axis how many points share one of its values."""
    return tuple(math.prod(map(len, axes[place:])) for place in range(len(axes) + 1))


def _check_size(job: Job, axes: Sequence[Axis], size: int) -> None:
    if size > MAX_TASKS:
        factors = " x ".join(f"{len(axis)} {'/'.join(axis.columns)}" for axis in axes)
        raise SpecError(
            f"the sweep has {size} tasks ({factors}); at most {MAX_TASKS} are allowed, so give"
            " fewer values"
        )
    if job.kind == "spmd" and size > 1:
        name, count = next(
            (name, len(axis)) for axis in axes for name in axis.columns if len(axis) > 1
        )
        raise SpecError(
            f"{count} values are not allowed, as {job.name} is an spmd job and runs one point;"
            " start it once for each value",
            key=name,
        )


def _constants(job: Job, swept: Mapping[str, Column]) -> dict[str, Any]:
    rest = [param for param in job.params if param.name not in swept]
    for param in rest:
        if param.required:
            raise SpecError(
                f"has no default; give {param.name}=value, {param.allowed}", key=param.name
            )
    return {p.name: p.existing(p.default) if p.type is Path else p.default for p in rest}


def _anywhere(text: str, column: Column) -> str:
    """Write an assignment so that it means the same in every directory."""
    if isinstance(column, Listed) and isinstance(column[0], Path):
        return ",".join(quoted(str(path)) for path in column.values)
    return text


def _as_array(indices: Sequence[int] | range) -> NDArray[np.int64]:
    import numpy as np

    if isinstance(indices, range):
        return np.arange(indices.start, indices.stop, indices.step, dtype=np.int64)
    return np.asarray(indices, dtype=np.int64)
