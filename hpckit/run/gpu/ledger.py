"""Where the time on a card went: in kernels, in transfers, and what each of them moved.

Events on the card take the times, so that nothing waits for them. Of a kernel that is launched
very often, only some launches are timed, and stand for the others.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from typing import Any

ALL = 64
"""So many first launches of a kernel are timed, all of them."""

EACH = 17
"""Of those after, one in so many: two events cost about as much as a launch. It is prime, so that
it does not meet the same one of a job's rounds each time."""

PENDING = 4096
"""Timings that may wait for the card before the host waits for them."""


@dataclass
class Account:
    """What one kernel, or one kind of transfer, did.

    Attributes
    ----------
    calls
        How many there were.
    first
        Seconds of the first ones, each of which is timed.
    timed, work_timed, work
        Of those after: seconds of the timed ones; their work, and that of all, in threads or bytes.
    nbytes, flops
        That all moved and computed: of a kernel, as the job says.
    needs, numbers
        Of a kernel: what it needs of the card, and the type of its numbers.
    """

    calls: int = 0
    first: float = 0.0
    timed: float = 0.0
    work_timed: float = 0.0
    work: float = 0.0
    nbytes: float = 0.0
    flops: float = 0.0
    needs: dict[str, int] = field(default_factory=dict)
    numbers: str = "float64"

    @property
    def total(self) -> float:
        """Seconds of all, if those without a time went as fast as the others."""
        rest = self.timed * self.work / self.work_timed if self.work_timed else 0.0
        return self.first + rest

    def count(self, nbytes: float, flops: float = 0.0) -> None:
        """Enter what a call moves and computes."""
        self.nbytes += nbytes
        self.flops += flops

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
        self._pending: deque[tuple[Account, float, bool, Any, Any]] = deque()
        self._opened = time.monotonic()

    def account(self, kernel: str, numbers: str, needs: dict[str, int] | None = None) -> Account:
        """Return the account of a kernel."""
        opened = Account(needs=needs or {}, numbers=numbers)
        return self.kernels.setdefault(kernel, opened)

    def transfer(self, name: str, stream: Any, nbytes: int) -> AbstractContextManager[None]:
        """Time a copy between the host and the card."""
        account = self.transfers.setdefault(name, Account())
        account.count(nbytes)
        return self.timed(account, stream, nbytes)

    @contextmanager
    def timed(self, account: Account, stream: Any, work: float) -> Iterator[None]:
        """Time a call of so much work."""
        account.calls += 1
        is_first = account.calls <= ALL
        if not is_first:
            account.work += work
            if account.calls % EACH:
                yield
                return
        begin, end = self._event(), self._event()
        begin.record(stream)
        yield
        end.record(stream)
        self._pending.append((account, work, is_first, begin, end))
        self._settle(wait=len(self._pending) > PENDING)

    def _event(self) -> Any:
        return self._spare.pop() if self._spare else self._cuda.Event()

    def _settle(self, *, wait: bool) -> None:
        """Enter the times that are known, and those of all if there is time to wait."""
        while self._pending:
            account, work, is_first, begin, end = self._pending[0]
            if wait:
                end.synchronize()
            elif not end.query():
                return
            seconds = begin.time_till(end) * 1e-3
            if is_first:
                account.first += seconds
            else:
                account.timed += seconds
                account.work_timed += work
            self._spare += (begin, end)
            self._pending.popleft()

    def forget(self) -> None:
        """Let all events go, before the card does."""
        self._pending.clear()
        self._spare.clear()

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
            "kernels": {name: a.as_dict() for name, a in self.kernels.items() if a.calls},
            "transfers": {name: each.as_dict() for name, each in self.transfers.items()},
        }
