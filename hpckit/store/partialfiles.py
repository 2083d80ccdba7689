"""Partial results that lie in several sealed files."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hpckit.store.partials import Partials, PartialsFile, joined
from hpckit.store.reading import damage_explained, reading
from hpckit.store.tree import Node, largest

WINDOW_BYTES = 32 << 20
SMALL_BYTES = 1 << 20
"""Up to which a file's nodes are read together."""


@dataclass(frozen=True)
class Scattered:
    """The nodes of a farm that lie in several files, none within another one.

    Attributes
    ----------
    number, row
        Shape (nodes,): the file of each node, and its place there.
    task, span, nbytes
        The first task of each, how many tasks it covers, and the memory it takes.
    """

    paths: Sequence[Path]
    number: NDArray[np.int64]
    row: NDArray[np.int64]
    task: NDArray[np.int64]
    span: NDArray[np.int64]
    nbytes: NDArray[np.int64]
    _small: dict[int, dict[int, Node]] = field(default_factory=dict)
    """The nodes of small files that have been read and not been asked for."""

    @classmethod
    def over(cls, paths: Sequence[Path]) -> Scattered:
        """Look for the nodes of some files.

        Raises
        ------
        StoreError
            One does not read back.
        """
        columns: list[list[NDArray[np.int64]]] = [[np.zeros(0, np.int64)] for _ in range(5)]
        for number, path in enumerate(paths):
            with reading(path) as file:
                found = PartialsFile(file)
                count = len(found.task)
                parts = (
                    np.full(count, number),
                    np.arange(count),
                    found.task,
                    found.span,
                    found.node_bytes(),
                )
            for column, part in zip(columns, parts, strict=True):
                column.append(part)
        whole = [np.concatenate(column) for column in columns]
        chosen = largest(whole[2], whole[3])
        places, row, task, span, nbytes = (column[chosen] for column in whole)
        return cls(paths, places, row, task, span, nbytes)

    def totals(self) -> dict[str, tuple[np.dtype[Any], int]]:
        """Return the type and the size of each pool of all nodes."""
        totals: dict[str, tuple[np.dtype[Any], int]] = {}
        for number in np.unique(self.number).tolist():
            with reading(self.paths[number]) as file:
                found = PartialsFile(file)
            for name, sizes in found.sizes.items():
                before = totals.get(name, (None, 0))[1]
                own = int(sizes[self.row[self.number == number]].sum())
                totals[name] = (found.dtype(name), before + own)
        return totals

    def node(self, place: int) -> Node:
        """Read one node.

        Raises
        ------
        StoreError
            It does not read back.
        """
        number = int(self.number[place])
        if number not in self._small:
            own = np.flatnonzero(self.number == number)
            if self.nbytes[own].sum() > SMALL_BYTES:
                return self._values(number, self._read(number, np.array([place])))[0]
            values = self._values(number, self._read(number, own))
            self._small[number] = dict(zip(own.tolist(), values, strict=True))
        return self._small[number].pop(place)

    def only(self, chosen: NDArray[np.int64]) -> Partials:
        """Read some nodes."""
        return joined([self._read(n, chosen) for n in np.unique(self.number[chosen])])

    def windows(self) -> Iterator[Partials]:
        """Read the nodes in the order of their tasks, some at a time."""
        bounds = np.flatnonzero(np.diff((np.cumsum(self.nbytes) - 1) // WINDOW_BYTES)) + 1
        for window in np.split(np.arange(len(self.task)), bounds):
            if len(window):
                yield self.only(window)

    def _values(self, number: int, partials: Partials) -> list[Node]:
        with damage_explained(self.paths[number]):
            return list(partials.nodes())

    def _read(self, number: int, chosen: NDArray[np.int64]) -> Partials:
        rows = self.row[chosen[self.number[chosen] == number]]
        with reading(self.paths[number]) as file:
            first, last = int(rows[0]), int(rows[-1]) + 1
            found = PartialsFile(file).read(first, last)
            return found if len(rows) == last - first else found.only(rows - first)
