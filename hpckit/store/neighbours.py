"""Partial results of neighbours merged into fewer, while a farm goes on."""

from __future__ import annotations

import time
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from hpckit.errors import ReduceError
from hpckit.store.merging import Merge
from hpckit.store.partials import Partials, joined
from hpckit.store.tree import Node, Nodes


class Shelf(Protocol):
    """Where nodes are, in the order of their tasks: in memory, or in files."""

    @property
    def task(self) -> NDArray[np.int64]:
        """The first task of each."""
        ...

    @property
    def span(self) -> NDArray[np.int64]:
        """How many tasks each covers."""
        ...

    def node(self, place: int) -> Node:
        """Take one down, once."""
        ...

    def only(self, chosen: NDArray[np.int64]) -> Partials:
        """Return some as they are stored."""
        ...


def merged(shelf: Shelf, merge: Merge, seconds: float) -> Partials:
    """Return partials with neighbours merged, as far as there is time.

    What cannot be merged stays as it is: it is told where the whole is wanted.
    """
    due = time.monotonic() + seconds
    items: list[int | Node] = []
    for tree in _plan(shelf):
        try:
            items += _worked(shelf, tree, merge, due)
        except ReduceError:
            items += _leaves(tree)
    kept = [item for item in items if isinstance(item, int)]
    made = [item for item in items if not isinstance(item, int)]
    rest = shelf.only(np.array(sorted(kept), np.int64))
    return joined([rest, Partials.of(made)]) if made else rest


def is_worth_merging(shelf: Shelf) -> bool:
    """Tell whether merging leaves no more than half of the nodes."""
    return 2 * len(_plan(shelf)) <= len(shelf.task)


def _plan(shelf: Shelf) -> list[Any]:
    """Return what becomes of the nodes: the place of one, or a pair of what is to be merged."""
    plan = Nodes(lambda left, right: (left, right))
    for place, (start, span) in enumerate(
        zip(shelf.task.tolist(), shelf.span.tolist(), strict=True)
    ):
        plan.add(start, span, place)
    return [tree for *_, tree in plan]


def _leaves(tree: Any) -> list[int]:
    return [place for half in tree for place in _leaves(half)] if type(tree) is tuple else [tree]


def _worked(shelf: Shelf, tree: Any, merge: Merge, due: float) -> list[int | Node]:
    """Merge nodes as planned, until there is no more time; a place is a node left alone."""
    if type(tree) is not tuple:
        return [tree]
    left, right = (_worked(shelf, half, merge, due) for half in tree)
    if len(left) > 1 or len(right) > 1 or time.monotonic() > due:
        return left + right
    one, two = (shelf.node(item) if isinstance(item, int) else item for item in left + right)
    return [(one[0], 2 * one[1], merge(one[2], two[2]))]
