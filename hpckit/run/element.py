"""One element of an array: its share of a farm's tasks, worked off beside all the others."""

from __future__ import annotations

import os
import time
from collections import deque
from contextlib import suppress
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from hpckit.errors import BusyError, Interrupted
from hpckit.jobstates import NO_PROGRESS, TIME_IS_UP
from hpckit.processes import interruptible
from hpckit.run.agenda import Agenda, Scattered
from hpckit.run.engines import ELASTIC, Workplace, default_engine, engine_class
from hpckit.run.engines.pilots import Pilots
from hpckit.run.farm import FarmDriver
from hpckit.run.notice import Notice
from hpckit.run.sealing import Sealer
from hpckit.run.session import farm_spec
from hpckit.run.usage import usage
from hpckit.store.block import TaskState
from hpckit.store.collect import collect_array
from hpckit.store.coverage import cover
from hpckit.store.create import Run, reopen, require_unchanged
from hpckit.store.lock import driving, join_ranks
from hpckit.store.merging import Merge
from hpckit.store.progress import Publisher, Report
from hpckit.store.provenance import cpu_model, software_inside
from hpckit.store.results import task_states
from hpckit.store.rundir import RunDir
from hpckit.store.segments import SegmentWriter, list_segments, set_aside_damaged
from hpckit.store.shares import ElementEnd, Pending, share, tell_end, writer_name
from hpckit.store.submission import Submission
from hpckit.store.trace import MusterTrace
from hpckit.threads import limit_threads

COLLECT_PATIENCE = 5.0
"""Seconds to wait for whoever holds the run; if that takes longer, who looks next collects."""

LAST_SECONDS = 10.0
"""Before the time is up, what is not done by then is left, so that the rest can be sealed."""

SOME_FAILED = 3
"""The exit status of an element some of whose tasks failed."""


@dataclass
class Element:
    """An element at work.

    Attributes
    ----------
    job
        The scheduler's id.
    """

    run: Run
    submission: Submission
    number: int
    job: str
    begun: float = field(default_factory=time.time)

    def place(self, workers: int, pilots: Pilots | None = None) -> Workplace:
        """Return where its tasks are worked off: by so many processes here, or in other jobs."""
        return Workplace(workers, self.run.dir.log(f"element-{self.number:06d}"), pilots=pilots)

    @property
    def prefix(self) -> str:
        """The beginning of the names of its segments."""
        return writer_name(self.submission.session, self.number)

    def work(self, place: Workplace, report: Report) -> int:
        """Do what is missing of its share; return the exit status.

        It is 0 if all its tasks are done, 3 if some failed; 75 if its time was up before, and
        76 if it was and nothing came of it.

        Raises
        ------
        Interrupted
            SIGTERM; what was done is sealed.
        HpckitError
            As `hpckit.run.session.work_farm`.
        """
        limit_threads(self.run.job.resources.cpus_per_task)
        left, tried = self._left()
        driver = self._driver(left, tried, place, report)
        notice = Notice.from_environment()
        with interruptible(), notice.heeded(lambda: driver.drain(notice.seconds - LAST_SECONDS)):
            try:
                if len(left):
                    driver.run()
                driver.sealer.writer.merge_all()
            except KeyboardInterrupt:
                raise Interrupted("interrupted: what was done is sealed") from None
        worked = driver.done + driver.failed
        self._tell(driver, is_done=worked == len(left))
        if worked < len(left):
            return TIME_IS_UP if worked else NO_PROGRESS
        return SOME_FAILED if driver.failed else 0

    def _left(self) -> tuple[NDArray[np.int64], NDArray[np.int32] | None]:
        """Return what is missing of the share, and how often each task was tried before.

        An element that was here before, and went back to the queue, has sealed segments.
        """
        count, elements = len(self.run.sweep), self.submission.elements or 1
        merged = self.run.job.reduce is not None
        path = self.run.dir.pending(self.submission.session)
        if path.is_file():
            pending = Pending.read(path)
            mine = share(pending.indices, self.number, elements, together=merged)
            tried = np.zeros(count, np.int32)
            tried[pending.indices] = pending.tried
        else:
            mine, tried = share(range(count), self.number, elements, together=merged), None
        set_aside_damaged(self.run.dir.segments, self.prefix)
        own = [s.path for s in list_segments(self.run.dir.segments, self.prefix)]
        states = cover(own, count, self.run.dir.segments).state
        return mine[states[mine] == TaskState.MISSING], tried

    def _driver(
        self,
        left: NDArray[np.int64],
        tried: NDArray[np.int32] | None,
        place: Workplace,
        report: Report,
    ) -> FarmDriver:
        name = default_engine(self.run.job) if place.pilots is None else ELASTIC
        make, merge = engine_class(name), Merge.of(self.run.job)
        told = None if place.pilots is None else self.run.dir.progress
        return FarmDriver(
            spec=farm_spec(self.run),
            make_engine=lambda: make(place),
            agenda=Agenda(deque([Scattered(left)]), aligned=merge is not None),
            rules=self.run.manifest.job.rules,
            sealer=Sealer(SegmentWriter(self.run.dir.segments, self.prefix, merge)),
            publisher=Publisher(told, report),
            trace=MusterTrace(self.run.dir.workers),
            total=len(left),
            tried=tried,
        )

    def _tell(self, driver: FarmDriver, *, is_done: bool) -> None:
        """Leave word for the others; who sees that it was the last one collects.

        Where tasks failed, it is for who looks next: the scheduler may know why.
        """
        used = usage(driver.used)
        end = ElementEnd(
            session=self.submission.session,
            element=self.number,
            job=self.job,
            host=os.uname().nodename,
            cpu=cpu_model(),
            done=is_done,
            failed=driver.failed,
            begun=self.begun,
            seconds=time.time() - self.begun,
            cpu_seconds=used["cpu_seconds"],
            peak_bytes=max(used["driver_peak_bytes"], used["children_peak_bytes"]),
            software=software_inside(),
        )
        ends = tell_end(self.run.dir, end)
        good = (e for e in ends if e.done and not e.failed and e.session == end.session)
        done = {e.element for e in good}
        if len(done) == self.submission.elements:
            with suppress(BusyError), driving(self.run.dir, COLLECT_PATIENCE):
                again = reopen(self.run.dir)
                # A folder's list may lag on other nodes: then it is for who looks next.
                states = task_states(again.dir, len(again.sweep))
                if again.manifest.submission is not None and TaskState.MISSING not in states:
                    collect_array(again, {"completed": len(done)})


def open_element(directory: RunDir, session: int, number: int) -> Element:
    """Take part in a run as one of its elements.

    Raises
    ------
    UsageError
        The run has gone on without it.
    """
    join_ranks(directory)
    run = reopen(directory)
    submission = run.manifest.open_session(session)
    require_unchanged(run)
    return Element(run, submission, number, _job_id())


def _job_id() -> str:
    array, task = os.environ.get("SLURM_ARRAY_JOB_ID"), os.environ.get("SLURM_ARRAY_TASK_ID")
    return f"{array}_{task}" if array and task else os.environ.get("SLURM_JOB_ID", "")
