"""Farms whose tasks fail, or take their workers down."""

from __future__ import annotations

import os
import signal

import h5py
import numpy as np
import pytest
from endings import kill

from hpckit.store.progress import read_progress

ALL_ENGINES = pytest.mark.parametrize("engine", ["serial", "threads", "processes"])


def on(engine):
    """Return the options that choose an engine, with two workers where it can have them."""
    return ["--engine", engine, *([] if engine == "serial" else ["--workers", 2])]


def failures(run):
    """Return the error texts of the failed tasks, by index; all others must be done."""
    with h5py.File(run / "results.h5") as file:
        failed = np.flatnonzero(file["task_state"][()] == 2)
        assert (np.delete(file["task_state"][()], failed) == 1).all()
        return {int(i): file["tasks/error"].asstr()[i] for i in failed}


@ALL_ENGINES
def test_a_task_that_raises_leaves_the_others_alone(hpckit, engine):
    job = hpckit.job("""
        from hpckit import farm
        def deeper(n):
            return 1 // (n - 3)
        @farm
        def f(n: int = 0):
            return {"x": deeper(n)}
    """)
    ended = hpckit("run", "job.py", "n=range(20)", *on(engine))
    assert ended.code == 3
    assert ": 19 of 20 tasks done in" in ended.stdout
    *_, which, how, again = ended.stderr.splitlines()
    assert which == "task 3 failed: ZeroDivisionError: integer division or modulo by zero"
    assert how == f"in full: hpckit logs {hpckit.last().name} --task N"
    assert again == f"do them again: hpckit retry {hpckit.last().name}"
    (text,) = failures(hpckit.last()).values()
    lines = text.splitlines()
    assert lines[0] == "Traceback (most recent call last):"
    assert lines[1] == f'  File "{job}", line 7, in f'
    assert f'  File "{job}", line 4, in deeper' in lines
    assert hpckit.manifest().counts == {"missing": 0, "done": 19, "failed": 1}


@ALL_ENGINES
@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("import sys; sys.exit(5)", "SystemExit: 5"),
        ("raise GeneratorExit", "GeneratorExit"),
        ("raise KeyboardInterrupt", "KeyboardInterrupt"),
        ("import asyncio; raise asyncio.CancelledError", "asyncio.exceptions.CancelledError"),
        ("return object()", "TypeError: field 'result': "),
        ("return {'a': {1: 2}}", "TypeError: field 'a': "),
        ("return {'n': 1}", "TypeError: field 'n': the name is a parameter"),
        ("return {'tasks': 1}", "TypeError: field 'tasks': the name is hpckit's own"),
        ("return {'a/b': 1}", "TypeError: field 'a/b': a name is a string without a slash"),
        ("return {1: 1}", "TypeError: field 1: a name is a string without a slash"),
        ("raise type('Mute', (Exception,), {'__str__': lambda s: 1 / 0})", "Mute: "),
        ("raise ValueError('nul \\\\0 and surrogate \\\\ud800')", "ValueError: nul "),
    ],
)
def test_whatever_a_task_does_only_it_fails(hpckit, engine, line, told):
    hpckit.job(f"""
        from hpckit import farm
        @farm
        def f(n: int = 0):
            if n == 2:
                {line}
            return {{"x": n}}
    """)
    ended = hpckit("run", "job.py", "n=range(5)", *on(engine))
    assert ended.code == 3, ended.stderr
    found = failures(hpckit.last())
    assert list(found) == [2]
    assert told in found[2].splitlines()[-1]
    assert hpckit.manifest().counts["failed"] == 1


def test_many_failures_are_counted_not_listed(hpckit):
    hpckit.job("""
        from hpckit import farm
        @farm
        def f(n: int = 0):
            raise ValueError(n)
    """)
    ended = hpckit("run", "job.py", "n=range(50)", "--workers", 2)
    assert ended.code == 3
    assert ended.stderr.splitlines() == [
        "task 0 failed: ValueError: 0",
        "task 1 failed: ValueError: 1",
        "task 2 failed: ValueError: 2",
        "… and 47 more",
        f"in full: hpckit logs {hpckit.last().name} --task N",
        f"do them again: hpckit retry {hpckit.last().name}",
    ]


DEATHS = [
    ("os.kill(os.getpid(), signal.SIGKILL)", "was killed by SIGKILL, often for want of memory"),
    ("os.kill(os.getpid(), signal.SIGSEGV)", "was killed by SIGSEGV"),
    ("os.kill(os.getpid(), signal.SIGTERM)", "was killed by SIGTERM"),
    ("os.kill(os.getpid(), 35)", "was killed by signal 35"),
    ("os._exit(7)", "ended with exit status 7"),
    ("os._exit(0)", "ended with exit status 0"),
]


@pytest.mark.parametrize(("death", "reason"), DEATHS)
@pytest.mark.parametrize("workers", [1, 2, 4])
def test_a_task_that_kills_its_worker_alone_fails(hpckit, death, reason, workers):
    hpckit.job(f"""
        import os, signal, time
        from hpckit import farm
        @farm
        def f(task, n: int = 0):
            if n == 37:
                {death}
            return {{"x": task.rng.random(), "n2": n}}
    """)
    ended = hpckit("run", "job.py", "n=range(90)", "--workers", workers)
    assert ended.code == 3, ended.stderr
    found = failures(hpckit.last())
    assert list(found) == [37]
    assert found[37].startswith(f"the worker process {reason}")
    assert hpckit.manifest().counts == {"missing": 0, "done": 89, "failed": 1}
    with h5py.File(hpckit.last() / "results.h5") as file:
        assert np.delete(file["n2"][()], 37).tolist() == [n for n in range(90) if n != 37]
    assert "task 37 failed: the worker process" in ended.stderr
    hpckit.assert_all_gone()


def test_several_tasks_that_kill_their_workers(hpckit):
    hpckit.job("""
        import os
        from hpckit import farm
        @farm
        def f(n: int = 0):
            if n % 20 == 19:
                os.abort()
            return n
    """)
    assert hpckit("run", "job.py", "n=range(60)", "--workers", 2).code == 3
    found = failures(hpckit.last())
    assert list(found) == [19, 39, 59]
    # What memory it had used is known of a worker that lived long enough.
    reasons = {text.partition(";")[0] for text in found.values()}
    assert reasons == {"the worker process was killed by SIGABRT"}


def test_a_worker_that_dies_without_a_fault_costs_nothing(hpckit):
    """One whose worker was killed from outside is tried again, even if it was all alone."""
    hpckit.job("""
        import os, signal
        from pathlib import Path
        from hpckit import farm
        @farm
        def f(mark: str = ""):
            if not Path(mark).exists():
                Path(mark).touch()
                os.kill(os.getpid(), signal.SIGKILL)
            return 1
    """)
    ended = hpckit("run", "job.py", f"mark={hpckit.directory}/mark", "--workers", 2)
    assert ended.code == 0, ended.stderr
    with h5py.File(hpckit.last() / "results.h5") as file:
        assert file["tasks/attempts"][()].tolist() == [2]


def test_a_worker_that_cannot_end_does_not_hold_the_farm(hpckit):
    """A task has left a thread that never ends, in a process deaf to SIGTERM."""
    hpckit.job("""
        import signal, threading, time
        from hpckit import farm
        @farm
        def f(n: int = 0):
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            threading.Thread(target=time.sleep, args=(3600,)).start()
            if n == 3:
                signal.raise_signal(signal.SIGKILL)
            return n
    """)
    assert hpckit("run", "job.py", "n=range(5)", "--workers", 2).code == 3
    assert list(failures(hpckit.last())) == [3]
    hpckit.assert_all_gone()


def test_failed_tasks_are_not_done_again_by_resume(hpckit):
    hpckit.job("""
        from hpckit import farm
        @farm
        def f(n: int = 0):
            return 1 / n
    """)
    assert hpckit("run", "job.py", "n=range(3)", "--workers", 1).code == 3
    before = hpckit.digest()
    ended = hpckit("resume", "last")
    assert ended.code == 3
    assert hpckit.digest() == before


def test_a_slow_task_that_kills_its_worker_alone_fails(hpckit):
    """The search goes on in what a worker gives back unfinished because its time is up."""
    hpckit.job("""
        import os, time
        from hpckit import farm
        @farm
        def f(n: int = 0):
            if n >= 20:
                time.sleep(0.3)
            if n == 33:
                os.abort()
            return n
    """)
    assert hpckit("run", "job.py", "n=range(36)", "--workers", 1).code == 3
    assert list(failures(hpckit.last())) == [33]


def test_what_a_dead_worker_s_task_had_started_ends_too(hpckit):
    hpckit.job("""
        import os, subprocess
        from hpckit import farm
        @farm
        def f(n: int = 0):
            subprocess.Popen(["sleep", "3600"])
            os.abort()
    """)
    assert hpckit("run", "job.py", "--workers", 1).code == 3
    hpckit.assert_all_gone()


def test_a_worker_that_cannot_load_the_job(hpckit):
    """What was sealed counts, and the run goes on once the job loads again."""
    gone, killed = hpckit.directory / "gone", hpckit.directory / "killed"
    hpckit.job(f"""
        import os
        from multiprocessing import parent_process
        from pathlib import Path
        from hpckit import farm
        gone, killed = Path({str(gone)!r}), Path({str(killed)!r})
        if parent_process() is not None and gone.exists():
            raise ImportError("the modules' disk is gone")
        @farm
        def f(n: int = 0):
            if n == 5 and not killed.exists():
                killed.touch()
                gone.touch()
                os.abort()
            return {{"x": n}}
    """)
    ended = hpckit("run", "job.py", "n=range(20)", "--workers", 1)
    assert ended.code == 1
    (line,) = ended.stderr.splitlines()
    assert line.startswith("hpckit: a worker could not load the job: ")
    assert line.endswith("does not import: ImportError: the modules' disk is gone")
    manifest = hpckit.manifest()
    assert (manifest.state, manifest.driver) == ("failed", None)
    assert manifest.reason == line.removeprefix("hpckit: ")
    assert list((hpckit.last() / "segments").iterdir())
    gone.unlink()
    assert hpckit("resume", "last").code == 0
    assert failures(hpckit.last()) == {}


@pytest.mark.parametrize("engine", ["serial", "threads", "processes"])
def test_a_program_that_is_missing_fails_the_run_and_no_task(hpckit, engine):
    hpckit.job('command = "tool {n}"\n[params]\nn = 0\n[results]\nx = {regex = "."}\n', "job.toml")
    ended = hpckit("run", "job.toml", "n=range(5)", *on(engine))
    assert ended.code == 1, ended.stdout
    (line,) = ended.stderr.splitlines()
    assert line.startswith("hpckit: tool: no such program on PATH")
    assert hpckit.manifest().state == "failed"
    tool = hpckit.directory / "tool"
    tool.write_text("#!/bin/sh\necho $1\n")
    tool.chmod(0o700)
    path = f"{hpckit.directory}:{os.environ['PATH']}"
    assert hpckit("resume", "last", env={"PATH": path}).code == 0
    with h5py.File(hpckit.last() / "results.h5") as file:
        assert file["x"][()].tolist() == [0, 1, 2, 3, 4]
        assert file["tasks/attempts"][()].tolist() == [1] * 5


def test_the_progress_of_a_resumed_run_counts_its_failures(hpckit):
    hpckit.job("""
        import time
        from hpckit import farm
        @farm
        def f(n: int = 0):
            if n < 20:
                raise ValueError(n)
            time.sleep(0.05)
    """)
    progress = lambda: read_progress(hpckit.last() / "progress.json")  # noqa: E731
    driver = hpckit.start("run", "job.py", "n=range(300)", "--workers", 2)
    hpckit.until(lambda: hpckit.run_dirs() and progress() and progress().done > 0, "it is at work")
    kill(driver, signal.SIGINT)
    (hpckit.last() / "progress.json").unlink(missing_ok=True)
    driver = hpckit.start("resume", "last")
    hpckit.until(progress, "it is at work again")
    found = progress()
    kill(driver)
    assert found.before >= 20
    assert found.failed == 20
    assert found.done + found.failed >= found.before


def test_the_first_failure_is_told_while_the_others_go_on(hpckit):
    hpckit.job("""
        import time
        from hpckit import farm

        @farm
        def slow(n: int = 0):
            if n == 0:
                raise ValueError("of the first task")
            time.sleep(3600)
    """)
    driver = hpckit.start("run", "job.py", "n=range(3)", "--workers", 2)
    assert driver.stderr.readline() == "the first failure: ValueError: of the first task\n"
    kill(driver, signal.SIGINT)


def test_logs_of_tasks_that_failed_without_a_word(hpckit):
    hpckit.job("from hpckit import farm\n@farm\ndef f(n: int = 0): return 1 / n\n")
    assert hpckit("run", "job.py", "n=0,1,2").code == 3
    said = hpckit("logs", "last").stdout
    assert said.endswith("nothing was printed; 1 of its tasks failed, and --task N says why\n")
    assert "ZeroDivisionError" in hpckit("logs", "last", "--task", 0).stdout


def test_a_task_that_closes_all_descriptors_alone_fails(hpckit):
    """Its worker can neither answer nor log any more."""
    hpckit.job("""
        import os
        from hpckit import farm
        @farm
        def f(task, n: int = 0):
            if n == 30:
                os.closerange(0, 1024)
            return {"x": task.rng.random()}
    """)
    ended = hpckit("run", "job.py", "n=range(60)", "--workers", 2)
    assert ended.code == 3, ended.stderr
    found = failures(hpckit.last())
    assert list(found) == [30]
    assert found[30].startswith("the worker process ended with exit status ")
    assert "Traceback" not in ended.stderr
    hpckit.assert_all_gone()


def test_a_task_that_closes_the_log_alone_pays(hpckit):
    """Whatever a worker's log comes to, results do not hang on it."""
    hpckit.job("""
        import os
        from multiprocessing import parent_process
        from hpckit import farm
        @farm
        def f(task, n: int = 0):
            if n == 5:
                kept = {os.fstat(parent_process().sentinel).st_ino}
                for name in os.listdir("/proc/self/fd"):
                    try:
                        link = os.readlink(f"/proc/self/fd/{name}")
                    except OSError:
                        continue
                    if link.startswith("pipe:") and int(link[6:-1]) not in kept:
                        os.close(int(name))
            return {"x": task.rng.random()}
    """)
    ended = hpckit("run", "job.py", "n=range(20)", "--workers", 1)
    assert ended.code == 3, ended.stderr
    assert list(failures(hpckit.last())) == [5]
    assert "Traceback" not in ended.stderr
    hpckit.assert_all_gone()


@ALL_ENGINES
def test_a_child_that_a_task_forks_and_leaves_running_gives_no_results(hpckit, engine):
    hpckit.job("""
        import os, time, warnings
        from hpckit import farm
        warnings.simplefilter("ignore")
        @farm
        def f(task, n: int = 0):
            if n == 3 and os.fork() == 0:
                time.sleep(0.3)
                return {"x": -1, "large": [-1.0] * 40_000}
            return {"x": n, "large": [float(n)] * 40_000}
    """)
    ended = hpckit("run", "job.py", "n=range(12)", *on(engine))
    assert ended.code == 0, ended.stderr
    assert ended.stdout.count("tasks done in") == 1
    with h5py.File(hpckit.last() / "results.h5") as file:
        assert file["x"][()].tolist() == list(range(12))
        assert file["large"][:, 7].tolist() == list(range(12))
        assert file["tasks/attempts"][()].tolist() == [1] * 12
    hpckit.assert_all_gone()


@pytest.mark.parametrize("engine", ["serial", "processes"])
def test_a_task_that_leaks_up_to_its_limit_alone_fails(hpckit, engine):
    hpckit.job("""
        import resource
        from hpckit import farm
        @farm
        def f(n: int = 0):
            if n != 4:
                return n
            size = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
            before = resource.getrlimit(resource.RLIMIT_AS)
            resource.setrlimit(resource.RLIMIT_AS, (size + (64 << 20), before[1]))
            try:
                held = []
                while True:
                    held.append(bytearray(1 << 20))
            finally:
                resource.setrlimit(resource.RLIMIT_AS, before)
    """)
    ended = hpckit("run", "job.py", "n=range(9)", *on(engine))
    assert ended.code == 3, ended.stderr
    found = failures(hpckit.last())
    assert list(found) == [4]
    assert "MemoryError" in found[4]


def test_a_task_that_never_gets_its_memory_back_alone_fails(hpckit):
    """The limit stays, and so does what it leaked: its worker is of no use any more."""
    hpckit.job("""
        import resource
        from hpckit import farm
        held = []
        @farm
        def f(n: int = 0):
            if n == 20:
                size = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
                resource.setrlimit(resource.RLIMIT_AS, (size + (64 << 20),) * 2)
                for each in (1 << 20, 1 << 12, 64):
                    try:
                        while True:
                            held.append(bytearray(each))
                    except MemoryError:
                        pass
                held.append(bytearray(1 << 20))
            return {"x": n, "large": [1.0] * 1000}
    """)
    ended = hpckit("run", "job.py", "n=range(40)", "--workers", 2)
    assert ended.code == 3, ended.stderr
    assert "Traceback" not in ended.stderr
    assert list(failures(hpckit.last())) == [20]
    hpckit.assert_all_gone()


def test_tasks_that_print_much_at_once(hpckit):
    """Tasks, their threads and their children print more than a log takes, at a time."""
    hpckit.job("""
        import os, subprocess, sys, threading
        from hpckit import farm
        def flood():
            for _ in range(200):
                os.write(2, b"x" * 65536)
        @farm
        def f(n: int = 0):
            threads = [threading.Thread(target=flood) for _ in range(2)]
            for thread in threads:
                thread.start()
            subprocess.run(["head", "-c", "20000000", "/dev/zero"], check=True)
            print("y" * 3_000_000)
            for thread in threads:
                thread.join()
            return n
    """)
    ended = hpckit("run", "job.py", "n=range(4)", "--workers", 2)
    assert ended.code == 0, ended.stderr
    for log in (hpckit.last() / "logs").iterdir():
        assert log.stat().st_size < (4 << 20) + 200
    with h5py.File(hpckit.last() / "results.h5") as file:
        assert file["result"][()].tolist() == [0, 1, 2, 3]


@ALL_ENGINES
def test_exceptions_that_cannot_be_pickled_or_shown(hpckit, engine):
    hpckit.job("""
        from hpckit import farm
        class Stubborn(Exception):
            def __init__(self, a, b):
                self.lock = __import__("threading").Lock()
            def __reduce__(self):
                raise RuntimeError("not me")
            def __repr__(self):
                raise RuntimeError("nor this")
            __str__ = __repr__
        class Bare(BaseException):
            __str__ = __repr__ = lambda self: None
        class Both(ExceptionGroup):
            __str__ = __repr__ = lambda self: 1 / 0
        @farm
        def f(n: int = 0):
            if n == 2:
                raise Stubborn(1, 2) from Stubborn(3, 4)
            if n == 4:
                raise Bare
            if n == 6:
                raise Both("both", [Stubborn(1, 2)])
            return n
    """)
    ended = hpckit("run", "job.py", "n=range(9)", *on(engine))
    assert ended.code == 3, ended.stderr
    found = failures(hpckit.last())
    assert list(found) == [2, 4, 6]
    for index, name in {2: "Stubborn", 4: "Bare", 6: "Both"}.items():
        assert name in found[index]


@ALL_ENGINES
def test_a_clock_that_is_set_back(hpckit, engine):
    """Durations and waits go by another clock."""
    hpckit.job("""
        import time
        from hpckit import farm
        right, calls = time.time, []
        def stepping():
            calls.append(1)
            return right() - 3600 * len(calls)
        time.time = stepping
        @farm(task_retries=1)
        def f(n: int = 0):
            time.sleep(0.05)
            return n
    """)
    ended = hpckit("run", "job.py", "n=range(40)", *on(engine))
    assert ended.code == 0, ended.stderr
    with h5py.File(hpckit.last() / "results.h5") as file:
        assert file["result"][()].tolist() == list(range(40))
        assert (file["tasks/duration"][()] >= 0.04).all()
        assert (file["tasks/duration"][()] < 60).all()
    assert hpckit.manifest().seconds >= 0
