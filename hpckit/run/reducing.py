"""What a worker does with results that are to be merged: it merges them as they come."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from hpckit.store.merging import Merge
from hpckit.store.partials import Partials
from hpckit.store.tree import Nodes

NOTHING = object()
"""The row of a finished task that has nothing to add; that of a failed one is None."""


class MergedRows:
    """Takes the place of a list of rows, one a task, in the order of the batch.

    It holds what neighbours were merged into instead: of a batch without gaps a handful of
    values, however many tasks it has.
    """

    def __init__(self, indices: Iterable[int], merge: Merge) -> None:
        self.nodes = Nodes(merge)
        self._indices = iter(indices)
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def append(self, row: Any) -> None:
        """Take what the next task gave.

        Raises
        ------
        ReduceError
            It cannot be merged; what was merged before may be changed, and is of no use.
        """
        self._count += 1
        index = next(self._indices)
        if row is not None:
            self.nodes.add(index, 1, None if row is NOTHING else row)

    def partials(self) -> Partials:
        """Return what the tasks were merged into."""
        return Partials.of(self.nodes)
