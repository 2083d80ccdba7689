"""The pilots of a dask cluster: submitted and parted with as the work that is left asks."""

from __future__ import annotations

import asyncio
import sys
import time
from collections import defaultdict
from collections.abc import Coroutine, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from distributed.core import Status

from hpckit.errors import HpckitError, LaunchError, UsageError
from hpckit.jobstates import JobState
from hpckit.run.engines.dask_crew import Crew
from hpckit.run.engines.pilots import Backlog, Pilots, pilots_wanted
from hpckit.store.progress import Muster

ASK_SECONDS = 5.0
"""Between two questions to the batch scheduler how the pilots stand."""

IDLE_SECONDS = 10.0
"""For which a pilot stays that is not wanted any more, or has lost its workers."""

LEAVE_SECONDS = 5.0
"""What a pilot whose workers were told to end gets before its job is cancelled."""

FAILED_STARTS = 5
"""Pilots in a row that end before they have worked: then none can be had."""

FIRST_PAUSE, LONGEST_PAUSE = 1.0, 60.0
"""Seconds before others are submitted in place of those that failed; doubled each time."""

NO_FAULT = (JobState.CANCELLED, JobState.PREEMPTED, JobState.NODE_FAIL)
"""What befalls a pilot from outside, and says nothing of the next one."""


@dataclass(eq=False)
class Pilot:
    """What is known of one pilot.

    Attributes
    ----------
    job
        Its id, once it is submitted.
    members
        The addresses of its workers.
    idle_since
        Since when no worker of it, which has had some, has a call; by the monotonic clock.
    """

    name: str
    job: str | None = None
    members: frozenset[str] = frozenset()
    has_worked: bool = False
    is_leaving: bool = False
    idle_since: float | None = None

    def has_idled(self, now: float) -> bool:
        """Tell whether it is not needed for what is in flight now, nor was a moment ago."""
        return self.idle_since is not None and now > self.idle_since + IDLE_SECONDS


@dataclass
class Fleet:
    """The pilots of a session; everything here belongs to one event loop.

    Parameters
    ----------
    cluster
        The SLURMCluster, in whose specification each pilot is one worker.

    Attributes
    ----------
    was_accepted
        Whether the scheduler has ever taken one.
    failed_starts, pauses
        In a row: pilots that could not work, and times to wait before others are submitted.
    """

    cluster: Any
    pilots: Pilots
    fleet: dict[str, Pilot] = field(default_factory=dict)
    muster: Muster = field(default_factory=Muster)
    names: int = 0
    lost: int = 0
    was_accepted: bool = False
    failed_starts: int = 0
    pauses: int = 0
    not_before: float = 0.0
    asked_at: float = 0.0
    surplus_since: float | None = None
    trouble: LaunchError | None = None
    changing: asyncio.Task[None] | None = None
    asking: asyncio.Task[None] | None = None

    def tend(self, crew: Crew, backlog: Backlog) -> None:
        """Have as many pilots as the work that is left is worth; to be called again and again.

        Raises
        ------
        LaunchError
            None can be had.
        """
        self._raise_trouble()
        self._look(crew)
        wanted = pilots_wanted(self.pilots, backlog)
        self._count(wanted)
        if self.changing is None or self.changing.done():
            self._adjust(crew, wanted)
        is_asking = self.asking is not None and not self.asking.done()
        if not is_asking and time.monotonic() > self.asked_at + ASK_SECONDS:
            self.asked_at = time.monotonic()
            self.asking = asyncio.ensure_future(self._see_who_ended(crew))

    def _raise_trouble(self) -> None:
        for task in (self.changing, self.asking):
            if task is not None and task.done() and (error := task.exception()) is not None:
                raise LaunchError(f"the pilots could not be looked after: {error!r}") from error
        if self.trouble is not None:
            raise self.trouble

    def is_leaving(self, job: str) -> None:
        """Take note that a pilot's time is nearly up."""
        for pilot in self.fleet.values():
            pilot.is_leaving = pilot.is_leaving or pilot.job == job

    async def close(self) -> None:
        """Tell the workers of all pilots to end; see `PilotGround.finish` for their jobs."""
        for task in (self.changing, self.asking):
            if task is not None:
                await asyncio.wait({task}, timeout=LEAVE_SECONDS)
        if self.fleet:
            await self._part(list(self.fleet.values()))

    def cancel(self) -> None:
        """Do without all pilots at once, whatever they are at, and whatever is done to them."""
        for task in (self.changing, self.asking):
            if task is not None:
                task.cancel()
        for pilot in list(self.fleet.values()):
            self._forget(pilot, is_over=True)
        for job in self.cluster._created:
            # The cluster would not end with one that is being submitted still.
            job.status = Status.closed

    def _look(self, crew: Crew) -> None:
        """Take note of what the pilots have become."""
        now, members = time.monotonic(), defaultdict(set)
        for address, worker in self.cluster.scheduler.workers.items():
            members[str(worker.name).partition("/")[0]].add(address)
        for pilot in self.fleet.values():
            self._note_job(pilot)
            pilot.members = frozenset(members.get(pilot.job or "", ()))
            if pilot.members and not pilot.has_worked:
                pilot.has_worked, self.failed_starts, self.pauses = True, 0, 0
            if pilot.is_leaving:
                crew.retire(pilot.members)
            is_idle = pilot.has_worked and not crew.are_busy(pilot.members)
            pilot.idle_since = (pilot.idle_since or now) if is_idle else None

    def _note_job(self, pilot: Pilot) -> None:
        if pilot.job is None and (job := self.cluster.workers.get(pilot.name)) is not None:
            pilot.job = job.job_id
            self.was_accepted = self.was_accepted or pilot.job is not None

    def _count(self, wanted: int) -> None:
        queued = sum(not pilot.has_worked for pilot in self.fleet.values())
        running = sum(len(pilot.members) for pilot in self.fleet.values())
        slots = self.pilots.slots
        self.muster = Muster(wanted * slots, queued * slots, running, self.lost)

    def _adjust(self, crew: Crew, wanted: int) -> None:
        """Submit pilots that are missing, or part with those that are done or not needed."""
        now = time.monotonic()
        done = [pilot for pilot in self.fleet.values() if _is_done(pilot, now)]
        staying = [p for p in self.fleet.values() if not p.is_leaving and p not in done]
        missing = wanted - len(staying)
        self.surplus_since = (self.surplus_since or now) if missing < 0 else None
        if self.surplus_since is not None and now > self.surplus_since + IDLE_SECONDS:
            done += _needless(staying, now)[:-missing]
        for pilot in done:
            self.lost += not pilot.is_leaving and not pilot.members and pilot.has_worked
            pilot.is_leaving = True
            crew.retire(pilot.members)
        if done:
            self._begin(self._part(done))
        elif missing > 0 and now > self.not_before:
            self._begin(self._submit(missing))

    def _begin(self, change: Coroutine[Any, Any, None]) -> None:
        self.changing = asyncio.ensure_future(change)

    async def _submit(self, count: int) -> None:
        for _ in range(count):
            self.names += 1
            name = f"pilot-{self.names}"
            self.fleet[name] = Pilot(name)
            self.cluster.worker_spec[name] = self.cluster.new_spec
        try:
            await self.cluster._correct_state()
        except HpckitError as error:
            self._do_without_unsubmitted()
            self._pause()
            if isinstance(error, UsageError):
                self._was_refused(error)

    def _do_without_unsubmitted(self) -> None:
        for pilot in list(self.fleet.values()):
            self._note_job(pilot)
            if pilot.job is None:
                self._forget(pilot)

    def _was_refused(self, refusal: UsageError) -> None:
        """Note that no more can be had: for good if there was never one, else for now.

        A limit of how many jobs a user may have in the queue counts others than pilots too.
        """
        if not self.was_accepted:
            self.trouble = LaunchError(str(refusal))
        else:
            left = max(self.not_before - time.monotonic(), 0)
            print(f"hpckit: {refusal}: tried again in {left:.0f} s", file=sys.stderr, flush=True)

    async def _part(self, parting: Iterable[Pilot]) -> None:
        """Tell the workers of pilots to end; cancel the jobs that do not end by that."""
        members = [address for pilot in parting for address in pilot.members]
        with suppress(Exception):
            await self.cluster.scheduler.retire_workers(members, close_workers=True)
        ending = {pilot.job for pilot in parting if pilot.has_worked and pilot.job is not None}
        left = await self._left_after(ending, LEAVE_SECONDS)
        for pilot in parting:
            self._forget(pilot, is_over=pilot.job in ending - left)
        await self.cluster._correct_state()

    async def _left_after(self, jobs: set[str], seconds: float) -> set[str]:
        """Wait until jobs have ended, or some seconds are over; return those that have not."""
        end = time.monotonic() + seconds
        while jobs and time.monotonic() < end:
            states = await self._states(jobs)
            jobs = {job for job in jobs if job not in states or not states[job].has_ended}
            await asyncio.sleep(0.2 if jobs else 0)
        return jobs

    async def _states(self, jobs: Iterable[str]) -> dict[str, JobState]:
        """Ask how jobs stand; nothing is known where there is no answer."""
        try:
            return await asyncio.to_thread(self.pilots.queue.states, list(jobs))
        except HpckitError:
            return {}

    def _forget(self, pilot: Pilot, *, is_over: bool = False) -> None:
        """Have no pilot of that name; the cluster cancels its job, unless it is over."""
        self.fleet.pop(pilot.name, None)
        self.cluster.worker_spec.pop(pilot.name, None)
        if is_over and (job := self.cluster.workers.get(pilot.name)) is not None:
            job.job_id = None

    async def _see_who_ended(self, crew: Crew) -> None:
        """Do without the pilots whose jobs have ended."""
        asked = {pilot.job: pilot for pilot in self.fleet.values() if pilot.job is not None}
        states = await self._states(asked) if asked else {}
        for job, pilot in asked.items():
            state = states.get(job)
            if state is not None and state.has_ended and pilot.name in self.fleet:
                await self._has_ended(crew, pilot, state)

    async def _has_ended(self, crew: Crew, pilot: Pilot, state: JobState) -> None:
        for address in pilot.members:
            # Of a node that is cut off: its connections would take half a minute to time out.
            crew.lose_for_no_fault(address)
            await self.cluster.scheduler.remove_worker(address, stimulus_id="hpckit-pilot-ended")
        self._forget(pilot, is_over=True)
        self.lost += not pilot.is_leaving
        if not pilot.has_worked:
            self._pause()
            if state not in NO_FAULT:
                said = await asyncio.to_thread(self.pilots.queue.last_words, str(pilot.job))
                self._has_failed(f"job {pilot.job}: {state}" + (f": {said}" if said else ""))

    def _has_failed(self, how: str) -> None:
        """Note that a pilot could not work; that others can is better than none."""
        self.failed_starts += 1
        works = any(pilot.members for pilot in self.fleet.values())
        if self.failed_starts >= FAILED_STARTS and not works:
            self.trouble = LaunchError(f"pilots end before they have worked: {how}")

    def _pause(self) -> None:
        """Submit others only after a while; it is one while for all that fail together."""
        now = time.monotonic()
        if now > self.not_before:
            self.not_before = now + min(FIRST_PAUSE * 2**self.pauses, LONGEST_PAUSE)
            self.pauses += 1


def _is_done(pilot: Pilot, now: float) -> bool:
    """Tell whether a pilot has nothing to do and is to go, or has lost all of its workers."""
    if pilot.is_leaving:
        return pilot.idle_since is not None
    return pilot.has_idled(now) and not pilot.members


def _needless(staying: Iterable[Pilot], now: float) -> list[Pilot]:
    """Return the pilots that nothing is at, the first ones being those that wait in the queue."""
    queued = [pilot for pilot in staying if not pilot.has_worked and pilot.job is not None]
    return queued[::-1] + [pilot for pilot in staying if pilot.has_idled(now)]
