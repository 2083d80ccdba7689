"""Farms on dask: workers of its own, and those of a scheduler whose address is given."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import wait

import psutil
import pytest
from endings import PATIENCE, kill

from hpckit.run.engines import WorkerDied, Workplace, engine_class

NAPS = """
    import time
    from hpckit import farm

    @farm(seed=7)
    def nap(task, n: int = 0, ms: float = 5.0):
        print("nap", n)
        time.sleep(ms / 1000)
        return {"x": task.rng.random(), "square": n * n}
"""
STUCK = """
    import subprocess
    from hpckit import farm

    @farm
    def stuck(n: int = 0):
        if n >= 5:
            print("here", flush=True)
            subprocess.run(["sleep", "3600"])
        return n
"""
DASK = ["--engine", "dask", "--workers", 2]
SOON = {"DASK_DISTRIBUTED__COMM__TIMEOUTS__CONNECT": "3s"}


class Cluster:
    """A scheduler and workers that were there before hpckit."""

    def __init__(self, directory):
        self.directory = directory
        self.started = []
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.address = f"tcp://127.0.0.1:{self.port}"

    def scheduler(self):
        return self._start("scheduler", "--port", self.port)

    def workers(self, *options, env=None):
        return self._start("worker", self.address, "--nthreads", 1, *options, env=env)

    def end(self):
        for process in self.started:
            kill_tree(process)

    def _start(self, what, *options, env=None):
        argv = [sys.executable, "-m", f"distributed.cli.dask_{what}", *map(str, options)]
        argv += ["--host", "127.0.0.1", "--no-dashboard"]
        with (self.directory / f"{what}.out").open("ab") as out:
            process = subprocess.Popen(
                argv, cwd=self.directory, stdout=out, stderr=out, env={**os.environ, **(env or {})}
            )
        self.started.append(process)
        return process


def kill_tree(process):
    """Kill a process and its children, as a node that fails does."""
    if process.poll() is None:
        children = psutil.Process(process.pid).children(recursive=True)
        for one in [process, *children]:
            one.kill()
    process.wait(PATIENCE)


@pytest.fixture
def cluster(tmp_path_factory):
    found = Cluster(tmp_path_factory.mktemp("cluster"))
    yield found
    found.end()


@pytest.fixture
def engine(tmp_path):
    """Two workers."""
    made = engine_class("dask")(Workplace(2, tmp_path / "worker-{pid}.log"))
    yield made
    made.kill()


def undisturbed(hpckit, *sweep):
    """Return the digest that all other ways have to give."""
    assert hpckit("run", "job.py", *sweep, "--engine", "serial").code == 0
    return hpckit.digest()


def has_done(hpckit, runs=1):
    """Tell whether the newest run has done tasks."""
    return len(hpckit.run_dirs()) == runs and hpckit.logs().count("nap") > 5


def is_starting(hpckit):
    """Tell whether a session has begun, whose workers may not be there yet."""
    return (
        hpckit.run_dirs()
        and (hpckit.last() / "run.json").exists()
        and hpckit.manifest().engine == "dask"
    )


def worker_pids(hpckit):
    return [int(path.stem.rpartition("-")[2]) for path in (hpckit.last() / "logs").iterdir()]


def test_results_and_prints(hpckit):
    hpckit.job("""
        import os
        from hpckit import farm
        @farm
        def f(task, n: int = 0):
            print("open", n, end="")
            os.write(2, f"low {n}".encode())
            return {"x": task.rng.random(), "ragged": list(range(n)), "pid": 1}
    """)
    same = undisturbed(hpckit, "n=range(40)")
    ended = hpckit("run", "job.py", "n=range(40)", *DASK)
    assert (ended.code, ended.stderr) == (0, "")
    assert len(ended.stdout.splitlines()) == 2
    assert hpckit.digest() == same
    lines = hpckit.logs().splitlines()
    assert sorted(lines) == sorted(
        f"[{n}] {what} {n}" for n in range(40) for what in ("open", "low")
    )
    assert sorted(path.name for path in hpckit.directory.iterdir()) == ["job.py", "runs"]
    hpckit.assert_all_gone()


def test_a_task_that_kills_its_worker_fails_alone(hpckit):
    hpckit.job("""
        import os
        from hpckit import farm
        @farm
        def f(n: int = 0):
            if n == 33:
                os._exit(7)
            return n
    """)
    ended = hpckit("run", "job.py", "n=range(60)", *DASK)
    assert ended.code == 3
    assert "task 33 failed: the worker process ended with exit status 7" in ended.stderr
    assert hpckit.manifest().counts["failed"] == 1
    hpckit.assert_all_gone()


def test_a_worker_killed_from_outside(hpckit):
    hpckit.job(NAPS)
    same = undisturbed(hpckit, "n=range(200)")
    driver = hpckit.start("run", "job.py", "n=range(200)", *DASK)
    hpckit.until(lambda: has_done(hpckit, 2), "tasks are done")
    os.kill(worker_pids(hpckit)[0], signal.SIGKILL)
    _, stderr = driver.communicate(timeout=PATIENCE)
    assert (driver.returncode, stderr) == (0, "")
    assert hpckit.digest() == same


@pytest.mark.parametrize("engine", ["dask", "processes"])
def test_a_killed_driver_leaves_no_process_and_the_run_goes_on(hpckit, engine):
    hpckit.job(NAPS)
    same = undisturbed(hpckit, "n=range(200)")
    driver = hpckit.start("run", "job.py", "n=range(200)", *DASK)
    hpckit.until(lambda: has_done(hpckit, 2), "tasks are done")
    kill(driver)
    hpckit.assert_all_gone()
    ended = hpckit("resume", "last", "--engine", engine, "--workers", 2)
    assert ended.code == 0, ended.stderr
    assert hpckit.digest() == same


@pytest.mark.parametrize("signum", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_what_tasks_have_started_ends_with_the_driver(hpckit, signum):
    hpckit.job(STUCK)
    driver = hpckit.start("run", "job.py", "n=range(9)", *DASK)
    hpckit.until(lambda: hpckit.run_dirs() and "here" in hpckit.logs(), "a task is at its sleep")
    ended = kill(driver, signum)
    hpckit.assert_all_gone()
    if signum != signal.SIGKILL:
        assert ended.code == 130
        assert ended.stderr.splitlines()[1:] == [f"go on with: hpckit resume {hpckit.last()}"]


@pytest.mark.parametrize("begun", [False, True])
def test_ctrl_c(hpckit, begun):
    hpckit.job(NAPS)
    driver = hpckit.start("run", "job.py", "n=range(200)", *DASK)
    hpckit.until(lambda: has_done(hpckit) if begun else is_starting(hpckit), "it is so far")
    os.killpg(driver.pid, signal.SIGINT)
    ended = kill(driver, 0)
    assert ended.code == 130
    assert "Traceback" not in ended.stderr
    assert f"go on with: hpckit resume {hpckit.last()}" in ended.stderr
    hpckit.assert_all_gone()
    assert hpckit("resume", "last").code == 0


def listening():
    """Return where this process and its children listen."""
    this = psutil.Process()
    return {
        (process.pid, connection.laddr)
        for process in (this, *this.children(recursive=True))
        for connection in process.net_connections()
        if connection.status == psutil.CONN_LISTEN
    }


def test_nothing_listens_beyond_loopback(tmp_path):
    before = listening()
    engine = engine_class("dask")(Workplace(2, tmp_path / "worker-{pid}.log"))
    try:
        engine.submit(abs, -1).result(PATIENCE)
        assert {address.ip for _, address in listening() - before} == {"127.0.0.1"}
    finally:
        engine.kill()


def test_a_stranger_is_refused_by_the_scheduler(engine):
    """Whoever may hand in a pickle may do all that its reader may."""
    scheduler = engine._ground._cluster.scheduler.address
    script = (
        "import sys; from distributed import Client\n"
        "Client(sys.argv[1].replace('tls', 'tcp'), timeout=2)"
    )
    stranger = subprocess.run(
        [sys.executable, "-c", script, scheduler], capture_output=True, check=False
    )
    assert stranger.returncode != 0
    assert engine.submit(abs, -1).result(PATIENCE) == 1


def test_a_call_that_waits_goes_to_a_worker_that_is_idle(engine):
    calls = [engine.submit(time.sleep, seconds) for seconds in (3600, 0.2, 0.2, 0.2, 0.2, 0.2)]
    done, _ = wait(calls[1:], PATIENCE)
    assert len(done) == 5
    assert not calls[0].done()


def test_a_death_ends_no_call_but_its_own(engine):
    calls = [engine.submit(time.sleep, 0.5), engine.submit(signal.raise_signal, signal.SIGKILL)]
    calls += [engine.submit(abs, -n) for n in range(9)]
    with pytest.raises(WorkerDied, match="the worker process was killed by SIGKILL"):
        calls[1].result(PATIENCE)
    assert [call.result(PATIENCE) for call in calls[2:]] == list(range(9))
    assert calls[0].result(PATIENCE) is None


def test_an_abandoned_call(engine):
    stuck = engine.submit(time.sleep, 3600)
    other = engine.submit(time.sleep, 0.5)
    waiting = [engine.submit(abs, -n) for n in range(4)]
    engine.abandon(stuck)
    with pytest.raises(WorkerDied):
        stuck.result(PATIENCE)
    assert [call.result(PATIENCE) for call in (other, *waiting)] == [None, 0, 1, 2, 3]


FORK = """(lambda os, signal, pid:
    (signal.raise_signal(signal.SIGTERM), os._exit(0)) if pid == 0
    else os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
)(__import__("os"), __import__("signal"), __import__("os").fork())"""


def test_workers_leave_sigterm_to_the_driver_and_what_tasks_start_does_not(engine):
    at_work = engine.submit(time.sleep, 1.0)
    assert engine.submit(abs, -1).result(PATIENCE) == 1
    workers = [nanny.pid for nanny in engine._ground._nannies()]
    for pid in workers:
        os.kill(pid, signal.SIGTERM)
    for call, argument in ((subprocess.call, ["sh", "-c", "kill -TERM $$; exit 3"]), (eval, FORK)):
        assert engine.submit(call, argument).result(PATIENCE) == -signal.SIGTERM
    assert at_work.result(PATIENCE) is None
    assert workers == [nanny.pid for nanny in engine._ground._nannies()]


def test_calls_wait_until_they_are_the_first_at_a_worker(engine, hpckit):
    calls = [engine.submit(time.sleep, 3600) for _ in range(2)]
    hpckit.until(lambda: not engine.waiting(calls), "both are at a worker")
    calls += [engine.submit(time.sleep, seconds) for seconds in (0, 3600, 0)]
    assert engine.waiting(calls) == calls[2:]
    engine.abandon(calls[0])
    assert calls[2].result(PATIENCE) is None
    hpckit.until(lambda: engine.waiting(calls[1:2] + calls[3:]) == calls[4:], "the next begins")


def test_a_scheduler_at_an_address(hpckit, cluster):
    hpckit.job(NAPS)
    same = undisturbed(hpckit, "n=range(50)")
    cluster.scheduler()
    cluster.workers("--nworkers", 2)
    address = ["--engine", "dask", "--address", cluster.address]
    for _ in range(2):
        ended = hpckit("run", "job.py", "n=range(50)", *address)
        assert (ended.code, ended.stderr) == (0, "")
        assert hpckit.digest() == same
        assert sorted(hpckit.logs().splitlines()) == sorted(f"[{n}] nap {n}" for n in range(50))
    assert "nap" not in (cluster.directory / "worker.out").read_text()
    assert sorted(path.name for path in hpckit.directory.iterdir()) == ["job.py", "runs"]


def test_a_given_worker_dies_of_a_task(hpckit, cluster):
    hpckit.job("""
        import os
        from hpckit import farm
        @farm
        def f(n: int = 0):
            if n == 5:
                os._exit(7)
            return n
    """)
    cluster.scheduler()
    cluster.workers("--nworkers", 2)
    ended = hpckit("run", "job.py", "n=range(9)", "--engine", "dask", "--address", cluster.address)
    assert ended.code == 3
    assert "task 5 failed: the dask worker tcp://127.0.0.1:" in ended.stderr
    assert hpckit.manifest().counts["failed"] == 1


def test_an_interrupt_ends_the_task_at_a_given_worker(hpckit, cluster):
    hpckit.job(STUCK)
    cluster.scheduler()
    cluster.workers()
    address = ["--engine", "dask", "--address", cluster.address]
    driver = hpckit.start("run", "job.py", "n=range(9)", *address)
    hpckit.until(lambda: hpckit.run_dirs() and "here" in hpckit.logs(), "a task is at its sleep")
    (sleeping,) = [p for p in psutil.process_iter() if sleeps(p, cluster)]
    assert kill(driver, signal.SIGINT).code == 130
    psutil.wait_procs([sleeping], PATIENCE)
    assert not sleeping.is_running()
    hpckit.job(NAPS)
    assert hpckit("run", "job.py", "n=range(9)", *address).code == 0


def sleeps(process, cluster):
    """Tell whether a process is what `STUCK` starts on a given worker."""
    try:
        return process.name() == "sleep" and process.cwd().startswith(str(cluster.directory))
    except psutil.Error:
        return False


def test_a_scheduler_that_comes_back(hpckit, cluster):
    hpckit.job(NAPS)
    same = undisturbed(hpckit, "n=range(200)")
    old = [cluster.scheduler(), cluster.workers()]
    address = ["--engine", "dask", "--address", cluster.address]
    driver = hpckit.start("run", "job.py", "n=range(200)", *address)
    hpckit.until(lambda: has_done(hpckit, 2), "tasks are done")
    for process in old:
        kill_tree(process)
    cluster.scheduler()
    cluster.workers()
    _, stderr = driver.communicate(timeout=PATIENCE)
    assert (driver.returncode, stderr) == (0, "")
    assert hpckit.digest() == same


def test_a_scheduler_that_does_not_come_back(hpckit, cluster):
    hpckit.job(NAPS)
    same = undisturbed(hpckit, "n=range(200)")
    scheduler = cluster.scheduler()
    cluster.workers()
    address = ["--engine", "dask", "--address", cluster.address]
    driver = hpckit.start("run", "job.py", "n=range(200)", *address, env=SOON)
    hpckit.until(lambda: has_done(hpckit, 2), "tasks are done")
    kill_tree(scheduler)
    ended = kill(driver, 0)
    assert ended.code == 1
    resume = f"hpckit resume {hpckit.last()} --engine processes"
    assert ended.stderr == (
        f"hpckit: {cluster.address}: the dask scheduler was lost and did not come back within "
        f"3 s; what was done is sealed, go on here with: {resume}\n"
    )
    assert hpckit(*resume.split()[1:]).code == 0
    assert hpckit.digest() == same


def test_a_scheduler_without_workers(hpckit, cluster):
    hpckit.job(NAPS)
    cluster.scheduler()
    hpckit.until(lambda: "Scheduler at" in (cluster.directory / "scheduler.out").read_text(), "up")
    ended = hpckit("run", "job.py", "--engine", "dask", "--address", cluster.address, env=SOON)
    assert ended.code == 1
    assert len(ended.stderr.splitlines()) == 1
    assert f"start some with `dask worker {cluster.address}" in ended.stderr


def test_workers_without_hpckit(hpckit, cluster):
    hpckit.job(NAPS)
    (cluster.directory / "hpckit.py").touch()
    cluster.scheduler()
    cluster.workers(env={"PYTHONPATH": str(cluster.directory)})
    ended = hpckit("run", "job.py", "--engine", "dask", "--address", cluster.address)
    assert ended.code == 1
    (line,) = ended.stderr.splitlines()
    assert "No module named 'hpckit.run'" in line
    assert "cannot do tasks" in line


@pytest.mark.parametrize(
    ("address", "why"),
    [("tcp://127.0.0.1:1", "Timed out"), ("nonsense", "port"), ("http://127.0.0.1:1", "http")],
)
def test_a_wrong_address(hpckit, address, why):
    hpckit.job(NAPS)
    ended = hpckit("run", "job.py", "--engine", "dask", "--address", address, env=SOON)
    assert ended.code == 2
    (line,) = ended.stderr.splitlines()
    assert line.startswith(f"hpckit: --address {address}: no dask scheduler answers (")
    assert why in line
    assert not hpckit.run_dirs()


@pytest.mark.parametrize("engine", [[], ["--engine", "threads"]])
def test_an_engine_that_has_no_address(hpckit, engine):
    hpckit.job(NAPS)
    ended = hpckit("run", "job.py", "--address", "tcp://127.0.0.1:1", *engine)
    assert ended.code == 2
    (line,) = ended.stderr.splitlines()
    assert line.endswith("take --engine dask")
    assert not hpckit.run_dirs()
