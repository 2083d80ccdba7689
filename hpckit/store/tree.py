"""The one order in which the results of a farm's tasks are merged.

A node of level k covers the tasks from j*2**k to (j+1)*2**k; its value is that of its left
half merged with that of its right half, and where one half has no value, that of the other.
So the value of the whole depends on nothing but which tasks are done: floating-point sums are
the same, bit for bit, however tasks were grouped. Within what is sealed only whole nodes are
merged, since tasks that are missing now may come later.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

Node = tuple[int, int, Any]
"""The first task, how many there are, and their value."""

_TOP_LEVEL = 62
_TOP = 1 << _TOP_LEVEL
_NONE = object()


class Nodes:
    """Values of tasks, given in any order, each merged with its neighbour once both are there.

    Of n tasks without gaps, given in their order, it holds no more than log2(n) + 1 values.
    """

    def __init__(self, merge: Callable[[Any, Any], Any]) -> None:
        self.merge = merge
        # By the path from the root: 1, then a bit for each turn. A sibling differs in the last.
        self._values: dict[int, Any] = {}

    def __len__(self) -> int:
        return len(self._values)

    def __iter__(self) -> Iterator[Node]:
        """Yield the nodes in the order of their tasks."""
        return iter(
            sorted(((*_extent(key), value) for key, value in self._values.items()), key=_first)
        )

    def add(self, start: int, span: int, value: Any) -> None:
        """Take the value of some tasks.

        Raises
        ------
        ReduceError
            It cannot be merged; what was merged before may be changed, and is of no use.
        """
        values = self._values
        key = (_TOP | start) >> (span.bit_length() - 1)
        while (other := values.pop(key ^ 1, _NONE)) is not _NONE:
            value = self.merge(other, value) if key & 1 else self.merge(value, other)
            key >>= 1
        values[key] = value


def folded(nodes: Iterable[Node], merge: Callable[[Any, Any], Any]) -> Any:
    """Merge all nodes, which come in the order of their tasks; None if there are none.

    Raises
    ------
    ReduceError
        As `Nodes.add`.
    """
    stack: list[tuple[int, Any]] = []
    for start, _, value in nodes:
        level = (stack[-1][0] ^ start).bit_length() if stack else 0
        while len(stack) > 1 and (stack[-2][0] ^ stack[-1][0]).bit_length() < level:
            _merge_top(stack, merge)
        stack.append((start, value))
    while len(stack) > 1:
        _merge_top(stack, merge)
    return stack[0][1] if stack else None


def largest(task: NDArray[np.int64], span: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return which nodes lie in no other one, in the order of their tasks; one of equal ones.

    Two nodes overlap only where one holds all of the other: what was merged, beside what it was
    merged from, when a writer was killed between the two.
    """
    order = np.lexsort((-span, task))
    ends = np.maximum.accumulate((task + span)[order])
    kept = np.ones(len(order), bool)
    kept[1:] = task[order][1:] >= ends[:-1]
    return order[kept]


def aligned(start: int, size: int) -> int:
    """Return where a batch from `start` on, of `size` tasks at most, makes the fewest nodes."""
    level = size.bit_length() - 1
    return (start + size) >> level << level


def _merge_top(stack: list[tuple[int, Any]], merge: Callable[[Any, Any], Any]) -> None:
    _, right = stack.pop()
    start, left = stack.pop()
    stack.append((start, merge(left, right)))


def _extent(key: int) -> tuple[int, int]:
    level = _TOP_LEVEL + 1 - key.bit_length()
    return (key << level) ^ _TOP, 1 << level


def _first(node: Node) -> int:
    return node[0]
