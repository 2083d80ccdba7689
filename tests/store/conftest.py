"""A run directory, and a farm whose blocks are made without workers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

from hpckit.store import rundir
from hpckit.store.block import Block, make_block
from hpckit.store.columns import storable
from hpckit.store.rundir import RunDir

MakeBlock = Callable[[dict[int, dict[str, Any] | str]], Block]


class Points:
    """The parameter points of a farm of `count` tasks."""

    def __init__(self, count: int, **others: Callable[[int], Any]) -> None:
        self.count = count
        self.makers = {"T": float, **others}

    def __len__(self) -> int:
        return self.count

    def columns(self, indices: Sequence[int]) -> dict[str, list[Any]]:
        return {name: [make(i) for i in indices] for name, make in self.makers.items()}


@pytest.fixture
def run(tmp_path) -> RunDir:
    return rundir.create(tmp_path, "job")


@pytest.fixture
def points() -> type[Points]:
    return Points


@pytest.fixture
def block() -> MakeBlock:
    """Make a block: a dict of fields for a finished task, a text for a failed one."""

    def make(results: dict[int, dict[str, Any] | str]) -> Block:
        indices = list(results)
        rows = [
            None if isinstance(r, str) else {n: storable(n, v) for n, v in r.items()}
            for r in results.values()
        ]
        errors = {p: r for p, r in enumerate(results.values()) if isinstance(r, str)}
        times = np.array(indices, float)
        return make_block(indices, rows, errors, times, times, worker=1)

    return make
