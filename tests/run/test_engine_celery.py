"""The engine celery: workers that come and go, and a broker that dies."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import h5py
import numpy as np
import pytest
from endings import kill
from redis_server import MISSING, RedisServer, free_port, held_bytes, make_certificate

from hpckit.errors import LaunchError
from hpckit.run.batch import FarmSpec, Outcome, run_batch
from hpckit.run.celery import broker as keys
from hpckit.run.celery.wire import Begun, encode_reply
from hpckit.run.engines import WorkerDied, Workplace, engine_class
from hpckit.run.usage import Used
from hpckit.store.block import make_block

pytestmark = pytest.mark.skipif(MISSING, reason="redis-server is not there")

NAPS = """
    import time
    from hpckit import farm

    @farm(seed=7)
    def nap(task, n: int = 0, ms: float = 10.0):
        time.sleep(ms / 1000)
        return {"x": task.rng.random(), "square": n * n, "text": f"task {n}"}
"""
VALUES = """
    import numpy as np
    from hpckit import farm

    @farm(cpus_per_task=2)
    def values(task, n: int = 1, name: str = "a", z: complex = 1j, yes: bool = True):
        i = task.index
        print("here", i)
        square = task.rng.random((300, 300))
        result = {
            "integer": n,
            "big": np.int64(2**62 + i),
            "single": np.float32(n),
            "complexes": z * n,
            "flag": n % 2 == 0,
            "text": f"{name}-ü-{i}",
            "texts": [str(i), "", "ü"],
            "fixed": np.arange(6.0).reshape(2, 3) * n,
            "ragged": np.arange(i),
            "solved": np.linalg.solve(square, square[0]),
        }
        if n == 7:
            raise ValueError("seven")
        return result if n % 3 else {**result, "third": n, "few": np.ones((i, 2))}
"""


DOCS = Path(__file__).parents[2] / "docs"
BLOCK = re.compile(r"<!-- celery commands: (\w+) -->\n```bash\n(.*?)^```", re.DOTALL | re.MULTILINE)


@pytest.fixture
def server(tmp_path_factory):
    found = RedisServer(tmp_path_factory.mktemp("redis")).start()
    yield found
    found.kill()


@pytest.fixture
def engine(server, tmp_path):
    """An engine for the tests that play the worker themselves."""
    found = engine_class("celery")(Workplace(2, tmp_path / "worker-{pid}.log", server.url))
    yield found
    found.kill()


def work(hpckit, server, workers=2):
    """Start a worker."""
    return hpckit.start("worker", "--workers", workers, env=server.env)


def at_work(hpckit, runs=1):
    """Wait until a run has results that are sealed."""

    def has_sealed():
        there = len(hpckit.run_dirs()) >= runs
        return there and list((hpckit.last() / "segments").glob("w*.h5"))

    hpckit.until(has_sealed, "results are sealed")


def undisturbed(hpckit, *sweep):
    """Return the digest of a run on the default engine."""
    assert hpckit("run", "job.py", *sweep, "--workers", 2).code == 0
    return hpckit.digest()


def said(process, text):
    """Read what a process says until a text comes."""
    for line in process.stderr:
        if text in line:
            return line
    raise AssertionError(f"it never said {text!r}")


def test_the_same_as_serial(hpckit, server):
    hpckit.job(VALUES)
    # That of another program of the user's.
    env = {**server.env, "CELERY_BROKER_URL": "amqp://elsewhere.invalid"}
    hpckit.start("worker", "--workers", 2, env=env)
    sweep = ["n=range(40)", "repeat=2"]
    ended = hpckit("run", "job.py", *sweep, "--engine", "celery", env=env)
    assert ended.code == 3, ended.stderr
    assert "here" not in ended.stdout + ended.stderr
    lines = hpckit.logs().splitlines()
    assert {f"[{i}] here {i}" for i in range(80)} <= set(lines)
    assert hpckit("run", "job.py", *sweep, "--engine", "serial").code == 3
    first, second = hpckit.run_dirs()
    assert hpckit.digest(first) == hpckit.digest(second)


def test_one_worker_serves_one_run_after_the_other(hpckit, server):
    """What a job imports is as fresh in each run as it is in a process of its own."""
    hpckit.job("""
        from helper import VALUE
        from hpckit import farm
        @farm
        def f(n: int = 0):
            return n + VALUE
    """)
    worker = work(hpckit, server)
    for value in (1, 2):
        hpckit.job(f"VALUE = {value}\n", "helper.py")
        assert hpckit("run", "job.py", "n=range(9)", "--engine", "celery", env=server.env).code == 0
        with h5py.File(hpckit.last() / "results.h5") as file:
            assert file["result"][()].tolist() == [n + value for n in range(9)]
    ended = kill(worker, signal.SIGTERM)
    assert ended.code == 0
    assert f"127.0.0.1:{server.port}" in ended.stderr
    assert server.password not in ended.stderr
    assert "Traceback" not in ended.stderr
    hpckit.assert_all_gone()


def test_a_task_that_kills_its_process_fails_alone(hpckit, server):
    hpckit.job("""
        import os, signal
        from hpckit import farm
        @farm
        def f(n: int = 0):
            if n == 33:
                os.kill(os.getpid(), signal.SIGKILL)
            return n
    """)
    work(hpckit, server)
    ended = hpckit("run", "job.py", "n=range(50)", "--engine", "celery", env=server.env)
    assert ended.code == 3, ended.stderr
    with h5py.File(hpckit.last() / "results.h5") as file:
        assert file["task_state"][()].tolist() == [2 if n == 33 else 1 for n in range(50)]
        assert "SIGKILL" in file["tasks/error"].asstr()[33]


def test_a_whole_worker_is_killed_while_another_lives(hpckit, server):
    hpckit.job(NAPS)
    sweep = ["n=range(600)", "ms=10"]
    expected = undisturbed(hpckit, *sweep)
    doomed = work(hpckit, server, workers=1)
    driver = hpckit.start("run", "job.py", *sweep, "--engine", "celery", env=server.env)
    at_work(hpckit, runs=2)
    work(hpckit, server, workers=1)
    kill(doomed)
    stdout, stderr = driver.communicate(timeout=120)
    assert driver.returncode == 0, stderr
    assert "600 tasks done" in stdout
    assert hpckit.digest() == expected


def test_a_worker_joins_late(hpckit, server):
    hpckit.job(NAPS)
    driver = hpckit.start("run", "job.py", "n=range(9)", "--engine", "celery", env=server.env)
    line = said(driver, "waiting for workers")
    assert "hpckit worker --broker redis://" in line
    assert server.password not in line
    assert driver.poll() is None
    work(hpckit, server)
    assert driver.wait(60) == 0


@pytest.mark.parametrize("keeps_data", [True, False])
def test_redis_is_killed_and_comes_back(hpckit, server, keeps_data):
    hpckit.job(NAPS)
    sweep = ["n=range(600)", "ms=10"]
    expected = undisturbed(hpckit, *sweep)
    work(hpckit, server)
    driver = hpckit.start("run", "job.py", *sweep, "--engine", "celery", env=server.env)
    at_work(hpckit, runs=2)
    server.kill()
    line = said(driver, "broker at")
    assert f"127.0.0.1:{server.port}" in line
    assert server.password not in line
    if not keeps_data:
        server.forget()
    server.start()
    _, stderr = driver.communicate(timeout=120)
    assert driver.returncode == 0, stderr
    assert hpckit.digest() == expected
    with h5py.File(hpckit.last() / "results.h5") as file:
        assert (file["tasks/attempts"][()] == 1).all()


@pytest.mark.parametrize("engine", ["celery", "processes"])
def test_the_driver_is_killed_and_the_run_resumed(hpckit, server, engine):
    hpckit.job(NAPS)
    sweep = ["n=range(300)", "ms=10"]
    expected = undisturbed(hpckit, *sweep)
    work(hpckit, server)
    driver = hpckit.start("run", "job.py", *sweep, "--engine", "celery", env=server.env)
    at_work(hpckit, runs=2)
    kill(driver)
    ended = hpckit("resume", "last", "--engine", engine, env=server.env)
    assert ended.code == 0, ended.stderr
    assert hpckit.digest() == expected


def test_interrupted(hpckit, server):
    hpckit.job("""
        import subprocess
        from hpckit import farm
        @farm
        def stuck(n: int = 0):
            if n >= 3:
                print("here", flush=True)
                subprocess.run(["sleep", "3600"])
            return n
    """)
    worker = work(hpckit, server)
    driver = hpckit.start("run", "job.py", "n=range(9)", "--engine", "celery", env=server.env)
    hpckit.until(lambda: hpckit.run_dirs() and "here" in hpckit.logs(), "a task is at its sleep")
    ended = kill(driver, signal.SIGINT)
    assert ended.code == 130
    assert "go on with: hpckit resume" in ended.stderr
    assert "Traceback" not in ended.stderr
    sleeping = lambda: [p for p in hpckit.processes() if p.name() == "sleep"]  # noqa: E731
    hpckit.until(lambda: not sleeping(), "what the task has started is ended")
    assert worker.poll() is None


def test_nothing_of_a_killed_worker_is_left(hpckit, server):
    hpckit.job("""
        import subprocess
        from hpckit import farm
        @farm
        def stuck(n: int = 0):
            print("here", flush=True)
            subprocess.run(["sleep", "3600"])
    """)
    worker = work(hpckit, server)
    driver = hpckit.start("run", "job.py", "n=range(9)", "--engine", "celery", env=server.env)
    hpckit.until(lambda: hpckit.run_dirs() and "here" in hpckit.logs(), "a task is at its sleep")
    kill(driver)
    kill(worker)
    hpckit.assert_all_gone()


def test_a_worker_that_is_told_twice_ends_at_once(hpckit, server):
    hpckit.job("""
        import time
        from hpckit import farm
        @farm
        def stuck(n: int = 0):
            print("here", flush=True)
            time.sleep(3600)
    """)
    worker = work(hpckit, server)
    driver = hpckit.start("run", "job.py", "n=range(9)", "--engine", "celery", env=server.env)
    hpckit.until(lambda: hpckit.run_dirs() and "here" in hpckit.logs(), "a task is at its sleep")
    os.killpg(worker.pid, signal.SIGINT)
    said(worker, "takes no more calls")
    time.sleep(1)
    assert worker.poll() is None
    os.killpg(worker.pid, signal.SIGINT)
    assert worker.wait(60) == 1
    kill(driver)
    hpckit.assert_all_gone()


def test_the_password_is_nowhere(hpckit, server):
    hpckit.job("""
        import os
        from hpckit import farm
        @farm
        def f(n: int = 0):
            print(dict(os.environ))
            return n
    """)
    worker = work(hpckit, server)
    ended = hpckit("run", "job.py", "n=range(9)", "--engine", "celery", "--broker", server.url)
    assert ended.code == 0, ended.stderr
    secret = server.password.encode()
    assert secret not in held_bytes(hpckit.directory)
    assert b"redis://***@127.0.0.1" in held_bytes(hpckit.last())
    assert server.password not in ended.stdout + ended.stderr
    told = kill(worker, signal.SIGTERM)
    assert server.password not in told.stdout + told.stderr


def test_a_broker_that_speaks_tls(hpckit, tmp_path):
    certificate = make_certificate(tmp_path, "127.0.0.1")
    server = RedisServer(tmp_path, certificate).start()
    try:
        hpckit.job(NAPS)
        expected = undisturbed(hpckit, "n=range(1,101)")
        worker = work(hpckit, server)
        ended = hpckit("run", "job.py", "n=range(1,101)", "--engine", "celery", env=server.env)
        assert ended.code == 0, ended.stderr
        assert hpckit.digest() == expected
        kill(worker, signal.SIGTERM)
        distrusted = {"SSL_CERT_FILE": "", "HPCKIT_BROKER": server.url}
        ended = hpckit("worker", env=distrusted)
        assert ended.code == 1
        assert "certificate verify failed" in ended.stderr
        # A certificate for another address is none for this one.
        other = make_certificate(tmp_path, "127.0.0.2")
        assert (
            "certificate verify failed"
            in hpckit("worker", env={**server.env, "SSL_CERT_FILE": str(other)}).stderr
        )
    finally:
        server.kill()


@pytest.mark.parametrize("command", [["run", "job.py", "--engine", "celery"], ["worker"]])
def test_a_broker_that_cannot_be_used(hpckit, server, command):
    hpckit.job(NAPS)
    wrong = f"redis://:wrongword@127.0.0.1:{server.port}/0"
    ended = hpckit(*command, env={"HPCKIT_BROKER": wrong})
    assert ended.code == 1
    (line,) = ended.stderr.splitlines()
    assert f"the broker at 127.0.0.1:{server.port} refuses the password" in line
    assert "wrongword" not in line
    server.kill()
    ended = hpckit(*command, env=server.env)
    assert ended.code == 1
    (line,) = ended.stderr.splitlines()
    assert f"the broker at 127.0.0.1:{server.port}" in line
    assert "start redis-server there" in line
    assert server.password not in line


@pytest.mark.parametrize(
    ("arguments", "broker", "told"),
    [
        (["run", "job.py", "--engine", "celery"], "", "needs a broker: set HPCKIT_BROKER="),
        (["worker"], "", "needs a broker: set HPCKIT_BROKER="),
        (["worker"], "redis://node7:6379/0", "a broker without a password at node7"),
        (["worker"], "amqp://:secretword@node7", "not of the form redis://:PASSWORD@HOST:PORT/0"),
        (["worker"], "redis://:secretword@node7:x/0", "not of the form redis://"),
        (["worker"], "redis://:secret/word@node7:6379/0", "not of the form redis://"),
        (
            ["run", "job.py", "--broker", "redis://:secretword@h/0"],
            "",
            "--broker is for the engine",
        ),
    ],
)
def test_what_is_refused(hpckit, arguments, broker, told):
    hpckit.job(NAPS)
    ended = hpckit(*arguments, env={"HPCKIT_BROKER": broker})
    assert ended.code == 2
    (line,) = ended.stderr.splitlines()
    assert told in line
    assert "secret" not in line
    assert not hpckit.run_dirs()


def a_spec(tmp_path):
    return FarmSpec(tmp_path, "job.py", tmp_path / "job.py", (), has_table=False, seed=0)


def session_of(server):
    (key,) = server.client().keys(keys.open_key("*"))
    return key.decode().rpartition(":")[2]


def an_outcome(indices):
    results = [{"x": float(i)} for i in indices]
    count = len(results)
    block = make_block(indices, results, {}, np.zeros(count), np.ones(count), 1)
    return Outcome(block, used=Used(1, 1.0, 1, 1))


def test_of_two_results_of_a_call_the_first_counts(server, engine, tmp_path):
    first, second = (engine.submit(run_batch, a_spec(tmp_path), range(n, n + 2), 1) for n in (0, 2))
    session, client = session_of(server), server.client()
    for name, indices in (("1.0", range(2)), ("1.0", range(2)), ("1.7", range(2)), ("2.0", [2, 3])):
        reply = encode_reply(f"{session}.{name}", an_outcome(indices))
        client.rpush(keys.replies_key(session), reply)
    assert first.result(60).block.task.tolist() == [0, 1]
    assert second.result(60).block.task.tolist() == [2, 3]


def test_broken_results_end_the_run_with_a_reason(server, engine, tmp_path):
    calls = [engine.submit(run_batch, a_spec(tmp_path), range(2), 1) for _ in range(2)]
    session, client = session_of(server), server.client()
    client.rpush(keys.replies_key(session), b"\x80\x04no JSON.")
    client.rpush(keys.replies_key(session), f'{{"call": "{session}.1.0", "outcome": {{}}}}')
    reply = encode_reply(f"{session}.2.0", an_outcome(range(5, 7)))
    client.rpush(keys.replies_key(session), reply)
    assert "cannot be read" in str(calls[0].result(60).trouble)
    assert "of other tasks" in str(calls[1].result(60).trouble)


def test_a_worker_that_falls_silent_is_dead(server, engine, tmp_path):
    call = engine.submit(run_batch, a_spec(tmp_path), range(2), 1)
    session, client = session_of(server), server.client()
    assert client.hdel(keys.open_key(session), f"{session}.1.0") == 1
    reply = encode_reply(f"{session}.1.0", Begun("node-7"))
    client.rpush(keys.replies_key(session), reply)
    with pytest.raises(WorkerDied, match="node-7 is gone"):
        call.result(60)


def test_a_message_that_is_lost_is_sent_again(server, engine, tmp_path):
    """A worker had taken it from the queue, and died before it began."""
    call = engine.submit(run_batch, a_spec(tmp_path), range(2), 1)
    session, client = session_of(server), server.client()
    client.delete(keys.QUEUE)
    end = time.monotonic() + 60
    while not client.llen(keys.QUEUE):
        assert time.monotonic() < end
        time.sleep(0.05)
    assert client.hexists(keys.open_key(session), f"{session}.1.1")
    assert not client.hexists(keys.open_key(session), f"{session}.1.0")
    assert not call.done()


def test_a_call_is_begun_once(hpckit, server):
    """A second message with the id of a call is not begun."""
    job = hpckit.job("""
        from pathlib import Path
        from hpckit import farm
        @farm
        def f(n: int = 0):
            with Path("begun").open("a") as stream:
                stream.write(f"{n}\\n")
            return n
    """)
    assert job.exists()
    driver = hpckit.start("run", "job.py", "n=range(1)", "--engine", "celery", env=server.env)
    client = server.client()
    hpckit.until(lambda: client.llen(keys.QUEUE) == 1, "the call waits")
    client.lpush(keys.QUEUE, *client.lrange(keys.QUEUE, 0, -1))
    worker = work(hpckit, server)
    assert driver.wait(60) == 0
    hpckit.until(lambda: client.llen(keys.QUEUE) == 0, "the queue is empty")
    kill(worker, signal.SIGTERM)
    assert (hpckit.directory / "begun").read_text() == "0\n"


def test_an_abandoned_call_ends_as_if_its_worker_had_died(hpckit, server):
    job = hpckit.job("""
        import time
        from hpckit import farm
        @farm
        def f(n: int = 0):
            if n:
                print("here", flush=True)
                time.sleep(3600)
    """)
    ended = hpckit("run", "job.py", "--engine", "serial")
    assert ended.code == 0
    run = hpckit.last()
    manifest = hpckit.manifest()
    again = manifest.updated(job=manifest.job.model_copy(update={"assignments": {"n": "0,1"}}))
    again.write(run / "run.json")
    work(hpckit, server)
    engine = engine_class("celery")(Workplace(2, run / "log", server.url))
    spec = FarmSpec(run, "job.py", job, (("n", "0,1"),), has_table=False, seed=manifest.job.seed)
    stuck = engine.submit(run_batch, spec, [1], 1)
    hpckit.until(lambda: "here" in hpckit.logs(), "the task sleeps")
    engine.abandon(stuck)
    with pytest.raises(WorkerDied, match="SIGKILL") as died:
        stuck.result(60)
    assert died.value.peak_bytes > 1 << 20
    assert engine.submit(run_batch, spec, [0], 1).result(60).trouble is None
    engine.close()


def test_a_call_that_is_abandoned_before_it_is_begun(engine, tmp_path):
    call = engine.submit(run_batch, a_spec(tmp_path), range(2), 1)
    engine.abandon(call)
    with pytest.raises(WorkerDied):
        call.result(60)


def test_calls_that_a_worker_refuses(hpckit, server):
    """A worker loads what its own user has made a run of, and nothing else."""
    hpckit.job(NAPS)
    assert hpckit("run", "job.py", "--engine", "serial").code == 0
    run, job = hpckit.last(), hpckit.directory / "job.py"
    work(hpckit, server)
    engine = engine_class("celery")(Workplace(2, run / "log", server.url))
    good = FarmSpec(run, "job.py", job, (), has_table=False, seed=7)
    assert engine.submit(run_batch, good, range(1), 1).result(60).trouble is None
    for other, told in [
        (FarmSpec(run, "job.py", job.parent / "evil.py", (), False, 7), "says otherwise"),
        (FarmSpec(run, "job.py", job, (), False, 8), "says otherwise"),
        (FarmSpec(run.parent / "none", "job.py", job, (), False, 7), "must see the same"),
    ]:
        trouble = engine.submit(run_batch, other, range(1), 1).result(60).trouble
        assert isinstance(trouble, LaunchError)
        assert told in str(trouble)
    if os.getuid() == 0:
        os.chown(run, 65534, -1)
        trouble = engine.submit(run_batch, good, range(1), 1).result(60).trouble
        assert "belongs to user 65534" in str(trouble)
        os.chown(run, 0, -1)
    engine.close()


def test_the_commands_of_the_docs(tmp_path):
    text = "".join(page.read_text() for page in DOCS.glob("*.md"))
    blocks = dict(BLOCK.findall(text.replace("6390", str(free_port()))))
    assert blocks.keys() == {"start", "use", "end"}
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    variables = {**os.environ, "HOME": str(tmp_path), "PATH": path}

    def run(name):
        """Run a block; a worker that it leaves behind must not hold a pipe open."""
        with (tmp_path / f"{name}.out").open("w+") as output:
            argv = ["bash", "-c", f"set -e\n{blocks[name]}"]
            options = {"stdout": output, "stderr": output, "start_new_session": True}
            process = subprocess.Popen(argv, cwd=tmp_path, env=variables, **options)
            try:
                return process.wait(60), Path(output.name).read_text()
            finally:
                if name == "use":
                    with suppress(ProcessLookupError):
                        os.killpg(process.pid, signal.SIGKILL)

    assert run("start")[0] == 0
    try:
        code, told = run("use")
    finally:
        assert run("end")[0] == 0
    assert code == 0, told
    assert "2 tasks done" in told
    secret = (tmp_path / ".hpckit-redis" / "password").read_text().strip()
    assert secret.encode() not in held_bytes(tmp_path / "runs")
    assert (tmp_path / ".hpckit-redis" / "redis.conf").stat().st_mode & 0o077 == 0
