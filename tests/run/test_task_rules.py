"""What a job, or the command line, says about tasks that fail or hang."""

from __future__ import annotations

import json
import os
import subprocess
import textwrap
import time

import h5py
import pytest

from hpckit.run import deadlines
from hpckit.run.engines import Workplace, engine_class
from hpckit.run.session import work_farm
from hpckit.spec.load import load_file
from hpckit.spec.sweep import Sweep
from hpckit.store.block import TaskState
from hpckit.store.create import create
from hpckit.store.progress import silent

FLAKY = """
    from pathlib import Path
    from hpckit import farm

    @farm{options}
    def flaky(task, n: int = 0, bad: int = 2):
        mark = Path(f"tries-{{n}}")
        tries = len(mark.read_text()) if mark.exists() else 0
        mark.write_text("x" * (tries + 1))
        if n == 1 and tries < bad:
            raise ValueError(f"try {{tries + 1}}")
        return {{"x": task.rng.random()}}
"""

HANG = """
    import ctypes, os, signal, time
    from hpckit import farm

    def spin():
        while True:
            pass

    def hold_the_lock():
        mutex = ctypes.create_string_buffer(256)
        for _ in range(2):
            ctypes.PyDLL(None).pthread_mutex_lock(mutex)

    HOW = {
        "python": spin,
        "sleep": lambda: time.sleep(3600),
        "held": hold_the_lock,
        "stopped": lambda: os.kill(os.getpid(), signal.SIGSTOP),
    }

    @farm
    def f(task, how: str = ""):
        HOW.get(how, int)()
        return {"x": task.index}
"""

LIMIT = "the task took longer than its time limit, 1 s"


def column(run, name):
    """Return a variable of the results."""
    with h5py.File(run / "results.h5") as file:
        found = file[name]
        return (found.asstr() if h5py.check_string_dtype(found.dtype) else found)[()].tolist()


def tries(hpckit, n):
    """Return how often a task was begun."""
    return len((hpckit.directory / f"tries-{n}").read_text())


@pytest.mark.parametrize("engine", ["serial", "threads", "processes"])
def test_a_task_that_fails_is_tried_again(hpckit, engine):
    hpckit.job(FLAKY.format(options="(task_retries=2)"))
    ended = hpckit("run", "job.py", "n=range(4)", "--engine", engine)
    assert ended.code == 0, ended.stderr
    assert column(hpckit.last(), "tasks/attempts") == [1, 3, 1, 1]
    assert column(hpckit.last(), "task_state") == [1, 1, 1, 1]
    assert tries(hpckit, 1) == 3
    # Its random stream is what it would have been.
    assert hpckit("run", "job.py", "n=range(4)", "--engine", engine).code == 0
    assert column(hpckit.last(), "tasks/attempts") == [1] * 4
    first, second = hpckit.run_dirs()
    assert hpckit.digest(first) == hpckit.digest(second)


def test_retries_that_are_used_up(hpckit):
    hpckit.job(FLAKY.format(options="(task_retries=5)"))
    ended = hpckit("run", "job.py", "n=range(4)", "bad=9", "--task-retries", 1)
    assert ended.code == 3
    assert "task 1 failed: ValueError: try 2" in ended.stderr.splitlines()
    assert tries(hpckit, 1) == 2
    assert column(hpckit.last(), "tasks/attempts") == [1, 2, 1, 1]
    assert column(hpckit.last(), "task_state") == [1, 2, 1, 1]


def test_retries_of_a_task_that_kills_its_worker(hpckit):
    """Deaths and exceptions both count as attempts."""
    hpckit.job("""
        import os
        from pathlib import Path
        from hpckit import farm

        @farm(task_retries=3)
        def f(n: int = 0):
            with Path("tries").open("a") as stream:
                stream.write("x")
            tries = len(Path("tries").read_text())
            if tries < 3:
                os.abort()
            if tries == 3:
                raise ValueError
    """)
    ended = hpckit("run", "job.py", "--workers", 1)
    assert ended.code == 0, ended.stderr
    assert column(hpckit.last(), "tasks/attempts") == [4]


def test_rules_in_toml(hpckit):
    hpckit.job(
        'command = "sh {script} {n}"\n[rules]\ntask_retries = 1\ntask_timeout = "20s"\n'
        'max_failures = 7\n[params]\nn = 0\nscript = { type = "path", default = "tool.sh" }\n'
        "[results]\nx = { regex = '.+' }\n",
        "job.toml",
    )
    hpckit.job("[ $1 = 0 ] || exit 4\necho $1\n", "tool.sh")
    ended = hpckit("run", "job.toml", "n=0,1")
    assert ended.code == 3
    assert column(hpckit.last(), "tasks/attempts") == [1, 2]
    rules = json.loads((hpckit.last() / "run.json").read_text())["job"]["rules"]
    assert rules == {"task_retries": 1, "task_timeout": "00:00:20", "max_failures": 7}


@pytest.mark.parametrize("how", ["python", "sleep"])
def test_a_task_over_its_limit_alone_fails(hpckit, how):
    hpckit.job(HANG)
    ended = hpckit("run", "job.py", f"how=a,b,{how},c,d", "--workers", 2, "--task-timeout", "1s")
    assert ended.code == 3, ended.stderr
    assert column(hpckit.last(), "task_state") == [1, 1, 2, 1, 1]
    assert column(hpckit.last(), "tasks/error")[2] == LIMIT
    assert column(hpckit.last(), "tasks/attempts") == [1] * 5
    assert f"task 2 failed: {LIMIT}" in ended.stderr.splitlines()
    # It was this worker that went on: nothing was killed.
    assert 1 <= column(hpckit.last(), "tasks/duration")[2] < 60
    hpckit.assert_all_gone()


def test_a_command_over_its_limit_ends_with_all_it_started(hpckit):
    hpckit.job(
        'command = "sh {script} {n}"\n[params]\nn = 0\n'
        'script = { type = "path", default = "tool.sh" }\n[results]\nx = { regex = ".+" }\n',
        "job.toml",
    )
    hpckit.job("[ $1 = 2 ] && { sleep 3600 & sleep 3600; }\necho $1\n", "tool.sh")
    ended = hpckit("run", "job.toml", "n=range(4)", "--workers", 2, "--task-timeout", "1s")
    assert ended.code == 3, ended.stderr
    assert column(hpckit.last(), "task_state") == [1, 1, 2, 1]
    assert column(hpckit.last(), "tasks/error")[2] == LIMIT
    hpckit.assert_all_gone()


def test_tasks_that_cannot_be_interrupted_are_killed(tmp_path, monkeypatch):
    """The driver ends the workers, and only what they were at fails, at the first time."""
    monkeypatch.setattr(deadlines, "GRACE_SECONDS", 2.0)
    path = tmp_path / "job.py"
    path.write_text(textwrap.dedent(HANG).replace("@farm", "@farm(task_timeout='1s')"))
    loaded = load_file(path)
    sweep = Sweep.from_args(loaded.job, ["how=held,stopped,a,b,c"])
    run = create(loaded, sweep, root=tmp_path, argv=[])
    place = Workplace(2, run.dir.log("worker-{pid}"))
    final = work_farm(run, "processes", place, silent, again=frozenset({TaskState.MISSING}))
    assert final.counts == {"missing": 0, "done": 3, "failed": 2}
    assert column(run.dir.path, "task_state") == [2, 2, 1, 1, 1]
    assert column(run.dir.path, "tasks/attempts")[:2] == [1, 1]
    for text in column(run.dir.path, "tasks/error")[:2]:
        assert text == f"{LIMIT}, and had to be killed with its worker"
    assert column(run.dir.path, "x")[2:] == [2, 3, 4]


def test_a_task_that_handles_alarms_itself_takes_no_limit_from_others(hpckit):
    hpckit.job("""
        import signal, time
        from hpckit import farm

        @farm(task_timeout="1s")
        def f(n: int = 0):
            if n == 0:
                signal.signal(signal.SIGALRM, signal.SIG_IGN)
            else:
                time.sleep(3600)
    """)
    assert hpckit("run", "job.py", "n=0,1", "--workers", 1).code == 3
    assert column(hpckit.last(), "tasks/error") == ["", LIMIT]


@pytest.mark.parametrize("engine", ["serial", "threads"])
def test_engines_that_cannot_end_a_task_refuse_a_limit(hpckit, engine):
    hpckit.job(HANG)
    ended = hpckit("run", "job.py", "--engine", engine, "--task-timeout", "1s")
    assert ended.code == 2
    assert ended.stderr == (
        f"hpckit: --task-timeout: the engine {engine} cannot end a task, which it works in "
        "hpckit's own process; take --engine processes\n"
    )
    assert hpckit.run_dirs() == []


FAILING = """
    from pathlib import Path
    from hpckit import farm

    @farm(max_failures=3)
    def f(n: int = 0):
        if n >= 10 and not Path("mended").exists():
            raise ValueError(n)
        return n
"""


@pytest.mark.parametrize("engine", ["serial", "threads", "processes"])
def test_too_many_failures_end_a_session(hpckit, engine):
    hpckit.job(FAILING)
    ended = hpckit("run", "job.py", "n=range(5000)", "--engine", engine)
    manifest = hpckit.manifest()
    counts = manifest.counts
    assert ended.code == 3
    assert ": 10 of 5000 tasks done in" in ended.stdout
    told, how = ended.stderr.splitlines()[-2:]
    assert told == f"stopped: {manifest.reason}; {counts['missing']} tasks are missing"
    assert how == f"go on with: hpckit resume {hpckit.last().name}"
    assert manifest.state == "failed"
    assert "tasks have failed, with max_failures = 3" in manifest.reason
    assert (counts["done"], counts["failed"] >= 3, counts["missing"] > 0) == (10, True, True)
    (hpckit.directory / "mended").touch()
    ended = hpckit("resume", "last")
    # Those that failed count as ended, and do not count against this session.
    assert ended.code == 3, ended.stderr
    assert hpckit.manifest().counts == {
        "missing": 0, "done": 5000 - counts["failed"], "failed": counts["failed"],
    }  # fmt: skip
    assert hpckit("retry", "last").code == 0
    assert column(hpckit.last(), "result") == list(range(5000))


def test_the_command_lines_rules_are_kept(hpckit):
    hpckit.job(FLAKY.format(options="(max_failures=5, task_timeout='1h')"))
    ended = hpckit("run", "job.py", "n=1,2,3,4", "bad=2", "--max-failures", 1)
    assert hpckit.manifest().job.rules.max_failures == 1
    assert hpckit.manifest().job.rules.task_timeout == 3600
    assert ended.code == 3


def test_resume_goes_by_the_rules_of_the_run(hpckit):
    hpckit.job("""
        import os, time
        from pathlib import Path
        from hpckit import farm

        @farm
        def f(n: int = 0):
            if n == 1 and not Path("killed").exists():
                Path("killed").touch()
                os.kill(int(Path("driver").read_text()), 9)
                time.sleep(3600)
            if n == 1 and not Path("tried").exists():
                Path("tried").touch()
                time.sleep(3600)
            return n
    """)
    driver = hpckit.start("run", "job.py", "n=range(3)", "--workers", 1, "--task-timeout", "1s",
                          "--task-retries", 1)  # fmt: skip
    (hpckit.directory / "driver").write_text(str(driver.pid))
    driver.communicate(timeout=60)
    assert driver.returncode == -9
    hpckit.assert_all_gone()
    ended = hpckit("resume", "last")
    assert ended.code == 0, ended.stderr
    assert column(hpckit.last(), "result") == [0, 1, 2]
    assert column(hpckit.last(), "tasks/attempts")[1] == 2


@pytest.fixture
def one_worker(tmp_path):
    """The engine `processes`, with a worker that is there already."""
    engine = engine_class("processes")(Workplace(1, tmp_path / "worker-{pid}.log"))
    engine.submit(int).result(60)
    yield engine
    engine.kill()


def test_a_call_that_waits_behind_another_ends_no_worker(one_worker):
    working = one_worker.submit(time.sleep, 1)
    waiting = one_worker.submit(os.getpid)
    one_worker.abandon(waiting)
    assert working.result(60) is None
    assert waiting.result(60) == one_worker.submit(os.getpid).result(60)


def test_a_worker_whose_call_fails_is_replaced_and_its_next_call_is_not_lost(one_worker):
    before = one_worker.submit(os.getpid).result(60)
    failing = one_worker.submit(int, "no number")
    waiting = one_worker.submit(os.getpid)
    with pytest.raises(ValueError, match="no number"):
        failing.result(60)
    assert waiting.result(60) != before


def test_a_failed_call_is_heard_though_its_worker_is_gone_when_the_next_is_sent(one_worker):
    """Sending to a socket whose other end is closed fails, and what came by it is unread yet."""
    late = []

    def hold_up(_):
        time.sleep(1)
        late.append(one_worker.submit(os.getpid))

    first = one_worker.submit(time.sleep, 0.3)
    first.add_done_callback(hold_up)
    failing = one_worker.submit(subprocess.check_call, "sleep 0.3; exit 7", shell=True)
    with pytest.raises(subprocess.CalledProcessError, match="7"):
        failing.result(60)
    assert late[0].result(60) > 0


def test_ranks_have_no_tasks(hpckit):
    hpckit.job("from hpckit import spmd\n@spmd\ndef f(run): ...\n")
    ended = hpckit("run", "job.py", "--max-failures", 3)
    assert ended.code == 2
    assert "--max-failures is for farms" in ended.stderr
