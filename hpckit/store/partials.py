"""Results of a farm that have been merged so far: some nodes of its tree, see `tree`.

They travel with the block of the tasks that they cover, and are sealed with it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from hpckit.store.layout import TEXT_TYPE, attach, make_dimension
from hpckit.store.storable import text_array
from hpckit.store.taking_apart import one_behind_the_other, put_together, taken_apart
from hpckit.store.tree import Node, largest

GROUP = "hpckit/partials"

_STORED = {np.dtype(bool): np.dtype(np.int8), np.dtype(np.float16): np.dtype(np.float32)}
"""What netCDF has in place of a type."""


@dataclass(frozen=True, eq=False)
class Pool:
    """Arrays of one type, one behind the other, some for each node.

    Attributes
    ----------
    sizes
        Shape (nodes,): how many values of each node there are.
    """

    values: NDArray[Any]
    sizes: NDArray[np.int64]

    def only(self, chosen: NDArray[np.int64]) -> Pool:
        """Return the pool of some nodes, in another order perhaps."""
        stops = np.cumsum(self.sizes)
        parts = [self.values[stops[i] - self.sizes[i] : stops[i]] for i in chosen]
        return Pool(np.concatenate([self.values[:0], *parts]), self.sizes[chosen])


@dataclass(frozen=True, eq=False)
class Partials:
    """The values of n nodes that do not overlap, in the order of their tasks.

    Attributes
    ----------
    task, span
        Shape (n,): the first task of each node, and how many tasks it covers.
    form
        Shape (n,), text: how each value is made of its arrays.
    pools
        Those arrays, by type.
    """

    task: NDArray[np.int64]
    span: NDArray[np.int64]
    form: NDArray[Any]
    pools: dict[str, Pool]

    @classmethod
    def of(cls, nodes: Iterable[Node]) -> Partials:
        """Store values."""
        listed = [(start, span, *taken_apart(value)) for start, span, value in nodes]
        names = dict.fromkeys(name for *_, pools in listed for name in pools)
        return cls(
            np.array([start for start, *_ in listed], np.int64),
            np.array([span for _, span, *_ in listed], np.int64),
            text_array([form for _, _, form, _ in listed]),
            {name: _pool([pools.get(name) for *_, pools in listed]) for name in names},
        )

    def __len__(self) -> int:
        return len(self.task)

    @property
    def nbytes(self) -> int:
        """Roughly the memory it takes."""
        return sum(p.values.nbytes + p.sizes.nbytes for p in self.pools.values()) + 256 * len(self)

    def nodes(self) -> Iterator[Node]:
        """Yield the nodes, their values anew each time.

        Raises
        ------
        ValueError
            Their arrays do not fit.
        """
        return map(self.node, range(len(self)))

    def node(self, place: int) -> Node:
        """Return one node, its value anew each time."""
        pools = {}
        for name, pool in self.pools.items():
            end = self._ends[name][place]
            pools[name] = pool.values[end - pool.sizes[place] : end]
        value = put_together(self.form[place], pools)
        return int(self.task[place]), int(self.span[place]), value

    @cached_property
    def _ends(self) -> dict[str, NDArray[np.int64]]:
        return {name: np.cumsum(pool.sizes) for name, pool in self.pools.items()}

    def only(self, chosen: NDArray[np.int64]) -> Partials:
        """Return some of the nodes."""
        return Partials(
            self.task[chosen],
            self.span[chosen],
            self.form[chosen],
            {name: pool.only(chosen) for name, pool in self.pools.items()},
        )


def joined(parts: Sequence[Partials]) -> Partials:
    """Put partials together; of nodes that overlap, the largest."""
    # Mostly they follow each other then, and nothing is copied a second time.
    parts = sorted((part for part in parts if len(part)), key=lambda part: part.task[0])
    if not parts:
        return Partials.of([])
    names = dict.fromkeys(name for part in parts for name in part.pools)
    whole = Partials(
        np.concatenate([part.task for part in parts]),
        np.concatenate([part.span for part in parts]),
        np.concatenate([part.form for part in parts]),
        {name: _joined_pool(name, parts) for name in names},
    )
    chosen = largest(whole.task, whole.span)
    return whole if np.array_equal(chosen, np.arange(len(whole))) else whole.only(chosen)


class PartialsWriter:
    """Writes partials into a file, some nodes at a time."""

    def __init__(self, file: h5py.File, count: int, totals: dict[str, tuple[np.dtype[Any], int]]):
        """Make the variables.

        Parameters
        ----------
        count
            Of the nodes.
        totals
            The type and the size of each pool.
        """
        self.group = file.create_group(GROUP)
        self.written = 0
        self.filled = dict.fromkeys(totals, 0)
        self._create("task", np.int64, count, "node")
        self._create("span", np.int64, count, "node")
        self._create("form", TEXT_TYPE, count, "node")
        for name, (dtype, total) in totals.items():
            self._create(f"{name}_values", _STORED.get(dtype, dtype), total, f"{name}_value")
            self._create(f"{name}_sizes", np.int64, count, "node")

    def write(self, partials: Partials) -> None:
        """Write the next nodes."""
        start, stop = self.written, self.written + len(partials)
        for name in ("task", "span", "form"):
            self.group[name][start:stop] = getattr(partials, name)
        for name, filled in self.filled.items():
            pool = partials.pools.get(name)
            self.group[f"{name}_sizes"][start:stop] = 0 if pool is None else pool.sizes
            if pool is not None:
                self.filled[name] = filled + len(pool.values)
                self.group[f"{name}_values"][filled : self.filled[name]] = pool.values
        self.written = stop

    def _create(self, name: str, dtype: Any, size: int, along: str) -> None:
        dataset = self.group.create_dataset(name, (size,), dtype)
        attach(dataset, [make_dimension(self.group, along, size)])


class PartialsFile:
    """Reads what a `PartialsWriter` wrote; of a file without partials, no node."""

    def __init__(self, file: h5py.File) -> None:
        """Take an open file.

        Raises
        ------
        ValueError
            Its nodes cannot be those of a tree.
        """
        self.group = file.get(GROUP)
        none = np.zeros(0, np.int64)
        self.task = none if self.group is None else self.group["task"][()]
        self.span = none if self.group is None else self.group["span"][()]
        names = [] if self.group is None else list(self.group)
        self.sizes = {
            name.removesuffix("_sizes"): self.group[name][()]
            for name in names
            if name.endswith("_sizes")
        }
        spans = self.span
        if len(spans) != len(self.task) or (spans < 1).any() or (spans & (spans - 1)).any():
            raise ValueError("its partial results cover no known tasks")
        if (self.task % np.maximum(spans, 1)).any() or (self.task < 0).any():
            raise ValueError("its partial results cover no known tasks")

    def dtype(self, name: str) -> np.dtype[Any]:
        """Return the type of a pool."""
        return np.dtype(np.uint8 if name == "text" else name)

    def node_bytes(self) -> NDArray[np.int64]:
        """Return about how much memory each node takes."""
        total = np.full(len(self.task), 256, np.int64)
        for name, sizes in self.sizes.items():
            total += sizes * self.dtype(name).itemsize
        return total

    def read(self, start: int, stop: int) -> Partials:
        """Read the nodes from `start` to `stop`."""
        pools = {}
        for name, sizes in self.sizes.items():
            first, last = int(sizes[:start].sum()), int(sizes[:stop].sum())
            values = self.group[f"{name}_values"][first:last].astype(self.dtype(name), copy=False)
            pools[name] = Pool(values, sizes[start:stop])
        form = self.group["form"].asstr()[start:stop] if len(self.task) else np.zeros(0, object)
        return Partials(self.task[start:stop], self.span[start:stop], form, pools)


def write_partials(file: h5py.File, partials: Partials | None) -> None:
    """Write all partials of a file at once, if there are any."""
    if partials is not None:
        totals = {n: (pool.values.dtype, len(pool.values)) for n, pool in partials.pools.items()}
        PartialsWriter(file, len(partials), totals).write(partials)


def _pool(parts: Sequence[NDArray[Any] | None]) -> Pool:
    sizes = np.array([0 if part is None else len(part) for part in parts], np.int64)
    return Pool(one_behind_the_other([part for part in parts if part is not None]), sizes)


def _joined_pool(name: str, parts: Sequence[Partials]) -> Pool:
    pools = [part.pools.get(name) for part in parts]
    none = [np.zeros(len(part), np.int64) for part in parts]
    sizes = [none[i] if pool is None else pool.sizes for i, pool in enumerate(pools)]
    values = [pool.values for pool in pools if pool is not None]
    return Pool(one_behind_the_other(values), np.concatenate(sizes))
