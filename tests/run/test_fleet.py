"""Pilots that a queue does not take, forgets, or ends: what the driver makes of it."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from importlib.util import find_spec
from itertools import count
from pathlib import Path
from threading import Event

import pytest

if find_spec("dask_jobqueue") is None:
    # Not imported: that would have Ctrl-C end this process on the spot.
    pytest.skip("needs dask-jobqueue: pip install 'hpckit[dask]'", allow_module_level=True)

from distributed import Worker
from endings import PATIENCE

from hpckit.errors import LaunchError, UsageError
from hpckit.jobstates import JobState
from hpckit.run.engines import Workplace, dask_fleet, engine_class
from hpckit.run.engines.dask_crew import Crew
from hpckit.run.engines.dask_pilots import PilotGround
from hpckit.run.engines.pilots import Backlog, Pilots
from hpckit.submit.client import NoAnswer


class Queue:
    """A queue that does as a test says.

    Attributes
    ----------
    jobs
        How the pilots stand that it has taken.
    error
        What comes of a submission in place of a job, and of other calls.
    answers
        Set unless submissions are to hang.
    tries
        Submissions so far.
    """

    path = Path("pilot.sh")

    def __init__(self) -> None:
        self.jobs: dict[str, JobState] = {}
        self.error: Exception | None = None
        self.tries = 0
        self.answers = Event()
        self.answers.set()
        self._ids = count(1)

    def open(self) -> None:
        pass

    def submit(self) -> str:
        self.tries += 1
        self.answers.wait(PATIENCE)
        if self.error is not None:
            raise self.error
        job = str(next(self._ids))
        self.jobs[job] = JobState.PENDING
        return job

    def cancel(self, ids) -> None:
        self.end(JobState.CANCELLED, ids)

    def sweep(self) -> None:
        if self.error is not None:
            raise self.error
        self.cancel(self.jobs)

    def states(self, ids) -> dict[str, JobState]:
        return {job: self.jobs[job] for job in ids}

    def last_words(self, job: str) -> str:
        return "no python here"

    def end(self, state: JobState, ids=None) -> None:
        self.jobs |= dict.fromkeys(list(self.jobs if ids is None else ids), state)


NO_ANSWER = NoAnswer("sbatch: Socket timed out", may_have_heard=False)
REFUSAL = UsageError("Slurm refuses it: job submit limit")


@pytest.fixture(autouse=True)
def hurry(monkeypatch):
    monkeypatch.setattr(dask_fleet, "FIRST_PAUSE", 0.0)
    monkeypatch.setattr(dask_fleet, "ASK_SECONDS", 0.05)


def place(folder: Path, queue: Queue) -> Workplace:
    """Two pilots of a queue, with one worker each."""
    pilots = Pilots(queue, folder / "contact", "token", "127.0.0.1", 1, 0, 2)
    return Workplace(2, folder / "log", pilots=pilots)


class Ground(PilotGround):
    """Pilots that a test looks after."""

    def __init__(self, folder: Path, queue: Queue) -> None:
        super().__init__(place(folder, queue))
        self.queue = queue

    async def until(self, condition) -> None:
        """Look after the pilots until something holds."""
        end = asyncio.get_running_loop().time() + PATIENCE
        while not condition():
            assert asyncio.get_running_loop().time() < end, "waited in vain"
            self.tend(self.crew, Backlog(100))
            await asyncio.sleep(0.01)

    @asynccontextmanager
    async def worker(self, job: str):
        """Have a pilot work."""
        address, security = self._cluster.scheduler.address, self._cluster.security
        async with Worker(address, name=f"{job}/0", security=security):
            await self.until(lambda: self.muster.running)
            yield


def on_pilots(folder: Path, work) -> None:
    """Have something done with the pilots of a queue."""

    async def all_of_it() -> None:
        ground = Ground(folder, Queue())
        try:
            ground.crew = Crew(await ground.open(), None, ground.reason)
            await work(ground, ground.queue)
        finally:
            await ground.close()

    asyncio.run(all_of_it())


def test_a_queue_that_does_not_answer_is_asked_again(tmp_path):
    async def work(ground, queue) -> None:
        queue.error = NO_ANSWER
        await ground.until(lambda: queue.tries > 20)
        queue.error = None
        await ground.until(lambda: len(queue.jobs) == 2)

    on_pilots(tmp_path, work)


@pytest.mark.parametrize("state", dask_fleet.NO_FAULT)
def test_pilots_that_end_from_outside_are_submitted_again(tmp_path, state):
    async def work(ground, queue) -> None:
        for taken in range(2, 12, 2):
            await ground.until(lambda: len(queue.jobs) == taken)  # noqa: B023
            queue.end(state)
        await ground.until(lambda: len(queue.jobs) == 12)

    on_pilots(tmp_path, work)


def test_pilots_that_fail_end_the_run_unless_one_works(tmp_path):
    async def work(ground, queue) -> None:
        await ground.until(lambda: len(queue.jobs) == 2)
        async with ground.worker("1"):
            for taken in range(2, 12):
                await ground.until(lambda: len(queue.jobs) == taken)  # noqa: B023
                queue.end(JobState.FAILED, list(queue.jobs)[1:])
        queue.end(JobState.CANCELLED, ["1"])
        queue.end(JobState.FAILED)
        with pytest.raises(LaunchError, match=r"before they have worked: job .*: no p"):
            await ground.until(lambda: queue.end(JobState.FAILED))

    on_pilots(tmp_path, work)


def test_a_refusal_ends_the_run_if_there_was_never_a_pilot(tmp_path):
    async def work(ground, queue) -> None:
        queue.error = REFUSAL
        with pytest.raises(LaunchError, match="job submit limit"):
            await ground.until(lambda: False)
        assert queue.tries == 2

    on_pilots(tmp_path, work)


def test_a_refusal_leaves_the_pilots_that_there_are(tmp_path, capsys):
    async def work(ground, queue) -> None:
        await ground.until(lambda: len(queue.jobs) == 2)
        queue.error = REFUSAL
        queue.end(JobState.CANCELLED, ["1"])
        await ground.until(lambda: queue.tries > 20)
        assert queue.jobs == {"1": JobState.CANCELLED, "2": JobState.PENDING}
        queue.error = None
        await ground.until(lambda: len(queue.jobs) == 3)

    on_pilots(tmp_path, work)
    assert "hpckit: Slurm refuses it: job submit limit: tried again in" in capsys.readouterr().err


def test_a_pilot_whose_submission_hangs_at_the_end_is_ended_too(tmp_path, hpckit):
    queue = Queue()
    queue.answers.clear()
    engine = engine_class("dask")(place(tmp_path, queue))
    engine.expect(Backlog(1))
    hpckit.until(lambda: queue.tries, "a pilot is being submitted")
    engine.kill()
    assert not (tmp_path / "contact").exists()
    assert queue.jobs == {}
    queue.answers.set()
    engine.finish()
    assert queue.jobs == {"1": JobState.CANCELLED}


def test_pilots_that_nobody_could_end_are_told_of(tmp_path, capsys):
    queue = Queue()
    engine = engine_class("dask")(place(tmp_path, queue))
    engine.close()
    queue.error = NO_ANSWER
    engine.finish()
    told = capsys.readouterr().err
    assert told.startswith(
        "hpckit: sbatch: Socket timed out: pilots of this run may be in the queue"
    )
