"""When calls count as lost whose tasks may take so long and no longer."""

from __future__ import annotations

from concurrent.futures import Future
from types import SimpleNamespace

import pytest

from hpckit.run import deadlines
from hpckit.run.deadlines import Deadlines


@pytest.fixture
def clock(monkeypatch):
    """A clock that a test sets."""
    found = SimpleNamespace(now=1000.0)
    found.monotonic = lambda: found.now
    monkeypatch.setattr(deadlines, "time", found)
    return found


def test_the_time_of_a_call_begins_with_a_worker(clock):
    limits, call, other = Deadlines(10.0, 1), Future(), Future()
    for one in (call, other):
        limits.add(one)
    late = []
    # Pilots wait in the queue for ten minutes; then one is there, and is at the first call.
    for second in range(660):
        clock.now = 1000.0 + second
        late += limits.take_late(lambda calls: calls if clock.now < 1600.0 else {other})
    assert late == []
    for second in range(660, 720):
        clock.now = 1000.0 + second
        late += limits.take_late(lambda calls: {other})
    assert late == [call]
    assert limits.drop(call)
    assert not limits.drop(other)
