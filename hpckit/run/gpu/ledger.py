"""Where the time on a card went: in kernels, in transfers, and what each of them moved.

Events on the card take the times, so that nothing waits for them. Of a kernel that is launched
very often, only some launches are timed, and stand for the others.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

ALL = 64
"""So many first launches of a kernel are timed, all of them."""

EACH = 16
"""Of those after, one in so many: two events cost about as much as a launch."""

PENDING = 4096
"""Timings that may wait for the card before the host waits for them."""


@dataclass
class Account:
    """What one kernel, or one kind of transfer, did.

    Attributes
    ----------
    calls, timed
        How many there were, and how many of them have a time.
    seconds
        Of the timed ones.
    nbytes, flops
        That all moved and computed: of a kernel, as the job says.
    needs, numbers
        Of a kernel: what it needs of the card, and the type of its numbers.
    """

    calls: int = 0
    timed: int = 0
    seconds: float = 0.0
    nbytes: float = 0.0
    flops: float = 0.0
    needs: dict[str, int] = field(default_factory=dict)
    numbers: str = "float64"

    @property
    def total(self) -> float:
        """Seconds of all, if the others took as long as the timed ones."""
        return self.seconds * self.calls / self.timed if self.timed else 0.0

    def as_dict(self) -> dict[str, Any]:
        """Return it for the manifest."""
        record: dict[str, Any] = {"calls": self.calls, "seconds": self.total, "bytes": self.nbytes}
        if self.flops:
            record |= {"flops": self.flops, "numbers": self.numbers}
        return record | self.needs


class Ledger:
    """The accounts of one card in one process.

    Attributes
    ----------
    kernels, transfers
        By name.
    """

    def __init__(self, cuda: Any) -> None:
        self.kernels: dict[str, Account] = {}
        self.transfers: dict[str, Account] = {}
        self._cuda = cuda
        self._spare: list[Any] = []
        self._pending: deque[tuple[Account, Any, Any]] = deque()
        self._opened = time.monotonic()

    @contextmanager
    def kernel(self, name: str, stream: Any, nbytes: float, flops: float) -> Iterator[Account]:
        """Time a launch."""
        account = self.kernels.setdefault(name, Account())
        account.nbytes += nbytes
        account.flops += flops
        with self._timed(account, stream):
            yield account

    @contextmanager
    def transfer(self, name: str, stream: Any, nbytes: int) -> Iterator[Account]:
        """Time a copy between the host and the card."""
        account = self.transfers.setdefault(name, Account())
        account.nbytes += nbytes
        with self._timed(account, stream):
            yield account

    @contextmanager
    def _timed(self, account: Account, stream: Any) -> Iterator[None]:
        account.calls += 1
        if account.calls > ALL and account.calls % EACH:
            yield
            return
        begin, end = self._event(), self._event()
        begin.record(stream)
        yield
        end.record(stream)
        self._pending.append((account, begin, end))
        self._settle(wait=len(self._pending) > PENDING)

    def _event(self) -> Any:
        return self._spare.pop() if self._spare else self._cuda.Event()

    def _settle(self, *, wait: bool) -> None:
        """Enter the times that are known, and those of all if there is time to wait."""
        while self._pending:
            account, begin, end = self._pending[0]
            if wait:
                end.synchronize()
            elif not end.query():
                return
            account.seconds += begin.time_till(end) * 1e-3
            account.timed += 1
            self._spare += (begin, end)
            self._pending.popleft()

    @property
    def is_counted(self) -> bool:
        """Whether of some kernel it is known what it moves or computes."""
        return any(each.nbytes or each.flops for each in self.kernels.values())

    def close(self) -> dict[str, Any]:
        """Wait for the card, and return all accounts for the manifest."""
        self._settle(wait=True)
        busy = sum(each.total for each in (*self.kernels.values(), *self.transfers.values()))
        held = time.monotonic() - self._opened
        return {
            "seconds": held,
            "kernel_seconds": sum(each.total for each in self.kernels.values()),
            "transfer_seconds": sum(each.total for each in self.transfers.values()),
            "idle_seconds": max(held - busy, 0.0),
            "kernels": {name: each.as_dict() for name, each in self.kernels.items()},
            "transfers": {name: each.as_dict() for name, each in self.transfers.items()},
        }
