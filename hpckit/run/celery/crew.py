"""The Celery workers that are there, as a driver sees them in Redis."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from hpckit.run.celery.broker import WORKERS, beat_key

if TYPE_CHECKING:
    import redis

BEAT_SECONDS = 1.0
"""Between two beats of a worker, and between two looks of a driver."""

DEATH_SECONDS = 6.0
"""Without a beat, a worker counts as dead."""

FRESH_SECONDS = 2.5
"""The age up to which a beat says what its worker is at."""

LONGEST_PAUSE = 3.0
"""Between two looks; after a longer one, silence says nothing about a worker."""

MAX_WORKERS = 1 << 20
_NAME = re.compile(r"[\w.-]{1,200}")


@dataclass
class Member:
    """One worker.

    Attributes
    ----------
    beat
        Its latest.
    heard
        When that changed, on this machine's clock.
    size
        How many calls it works on at a time.
    held
        The ids of those that it is at.
    """

    heard: float
    beat: Any = None
    size: int = 0
    held: frozenset[str] = frozenset()


@dataclass
class Crew:
    """All workers that a driver has heard of."""

    members: dict[str, Member] = field(default_factory=dict)
    looked: float | None = None

    @property
    def size(self) -> int:
        """How many calls all of them work on at a time."""
        return sum(member.size for member in self.members.values())

    def look(self, client: redis.Redis, now: float) -> None:
        """Take note of the workers' beats."""
        members: Any = client.smembers(WORKERS)
        known = sorted(name.decode(errors="replace") for name in members)
        names = [name for name in known if _NAME.fullmatch(name)]
        texts: Any = client.mget([beat_key(name) for name in names]) if names else []
        if self.looked is None or now - self.looked > LONGEST_PAUSE:
            self.forgive(now)
        self.looked = now
        for name, text in zip(names, texts, strict=True):
            if text is not None:
                self._hear(name, text, now)
        silent = [name for name, text in zip(names, texts, strict=True) if text is None]
        if silent:
            client.srem(WORKERS, *silent)

    def meet(self, name: str, now: float) -> None:
        """Take note of a worker that has begun a call, perhaps before its first beat was seen."""
        self.members.setdefault(name, Member(now))

    def speaks(self, name: str, now: float) -> bool:
        """Tell whether a worker's latest beat is fresh."""
        member = self.members.get(name)
        return member is not None and member.beat is not None and now - member.heard < FRESH_SECONDS

    def forgive(self, now: float) -> None:
        """Give all workers time to be heard: it was not they who were silent."""
        for member in self.members.values():
            member.heard = now

    def bury(self, now: float) -> set[str]:
        """Forget the dead; return their names."""
        dead = {n for n, member in self.members.items() if now - member.heard > DEATH_SECONDS}
        for name in dead:
            del self.members[name]
        return dead

    def _hear(self, name: str, text: bytes, now: float) -> None:
        try:
            beat, size, held = json.loads(text)
            known = type(beat) is int and type(size) is int and 0 < size <= MAX_WORKERS
            calls = frozenset(map(str, held))
        except (ValueError, TypeError):
            return
        member = self.members.get(name)
        if known and (member is None or member.beat != beat):
            self.members[name] = Member(now, beat, size, calls)
