"""What a task of a farm sees."""

from __future__ import annotations

import sys
from contextvars import ContextVar
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

from hpckit.run.gpu.wish import NONE, Wish, require

if TYPE_CHECKING:
    import numpy as np

    from hpckit.run.gpu.card import Gpu


class Current:
    """The task that a thread or a coroutine is at, for the lines that it prints.

    Attributes
    ----------
    index
        None between tasks.
    open_lines
        By stream, what the task has printed since its last end of line.
    """

    __slots__ = ("index", "open_lines")

    def __init__(self, index: int | None = None) -> None:
        self.index = index
        self.open_lines: dict[Any, str] = {}


current: ContextVar[Current | None] = ContextVar("current", default=None)
"""A variable of the context, so that each coroutine on an event loop has its own."""

LARGEST_SEED = 2**31 - 1
"""The largest that programs take which hold it as a signed integer of 32 bits."""

_ROUNDS = 4


class Task:
    """One parameter point of a farm, as the job function gets it.

    Attributes
    ----------
    index
        The task's number in the farm, from 0.
    params
        The values of all parameters.
    """

    _wish: ClassVar[Wish] = NONE

    def __init__(self, index: int, params: dict[str, Any], seed: int) -> None:
        self.index = index
        self.params = params
        self._seed = seed

    @cached_property
    def rng(self) -> np.random.Generator:
        """The task's own random stream: it depends on the seed and the index, on nothing else."""
        return stream(self._seed, self.index)

    @property
    def has_gpu(self) -> bool:
        """Whether the job asks for a GPU."""
        return self._wish.count > 0

    @property
    def gpu(self) -> Gpu:
        """The task's GPU: see docs/gpu.md.

        Raises
        ------
        LaunchError
            None can be had, or the job does not ask for one; the farm ends with the reason.
        """
        from hpckit.run.gpu.held import card_here

        return card_here(require(self._wish))

    @cached_property
    def seed(self) -> int:
        """A seed for the generator of another program: from 1 to `LARGEST_SEED`.

        No two of a run's first `LARGEST_SEED` tasks have the same.
        """
        return shuffled(self.index + 1, self._seed)

    def log(self, message: object) -> None:
        """Write a line to the run's log, under the task's index."""
        print(message, file=sys.stdout, flush=True)


def tasks_on(wish: Wish) -> type[Task]:
    """Return the class of tasks that may have cards."""
    return type("Task", (Task,), {"_wish": wish})


def stream(seed: int, index: int) -> np.random.Generator:
    """Return the random stream of a task or rank.

    `numpy.random.SeedSequence` with a spawn key gives independent streams without any order
    among them (NumPy's documentation, "Parallel random number generation").
    """
    from numpy.random import PCG64, Generator, SeedSequence

    return Generator(PCG64(SeedSequence(seed, spawn_key=(index,))))


def shuffled(number: int, seed: int) -> int:
    """Return the place of a number in a permutation of 1 to `LARGEST_SEED` that a seed selects.

    It is the balanced Feistel network of four rounds that Luby and Rackoff, SIAM J. Comput. 17,
    373 (1988), show to be a pseudorandom permutation, here of 32 bits; the hash in
    `numpy.random.SeedSequence` is its round function. Cycle walking (Black and Rogaway, CT-RSA
    2002) keeps it within the range.
    """
    from numpy.random import SeedSequence

    while True:
        left, right = divmod(number, 1 << 16)
        for turn in range(_ROUNDS):
            (word,) = SeedSequence(seed, spawn_key=(turn, right)).generate_state(1)
            left, right = right, left ^ int(word) & 0xFFFF
        number = left << 16 | right
        if 1 <= number <= LARGEST_SEED:
            return number
