"""One driver at a time, and none while ranks of an earlier one live."""

from __future__ import annotations

import errno
import fcntl
import os
import subprocess
import sys
from contextlib import contextmanager

import pytest

from hpckit.errors import BusyError
from hpckit.store import rundir
from hpckit.store.lock import driving, join_ranks, wait_for_ranks
from hpckit.store.manifest import Driver, Manifest, now

HOLD = """
import sys
from pathlib import Path
from hpckit.store.lock import driving, join_ranks
from hpckit.store.rundir import RunDir
run = RunDir(Path(sys.argv[1]))
if sys.argv[2] == "rank":
    join_ranks(run)
    print("held", flush=True)
    input()
with driving(run):
    print("held", flush=True)
    input()
"""


@contextmanager
def other(run, what):
    """Another process that holds a run, killed in the end."""
    argv = [sys.executable, "-c", HOLD, run.path, what]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen(argv, **pipes) as process:
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def test_one_driver_at_a_time(tmp_path):
    run = rundir.create(tmp_path, "job")
    with other(run, "driver") as process:
        with pytest.raises(BusyError, match="another process works on this run"), driving(run):
            pass
        # A lock must not outlive a driver that is killed.
        process.kill()
        process.wait()
        with driving(run):
            pass
    with driving(run):
        pass


def test_a_driver_waits_for_all_ranks(tmp_path):
    run = rundir.create(tmp_path, "job")
    with other(run, "rank") as first, other(run, "rank") as second:
        first.kill()
        first.wait()
        with pytest.raises(BusyError):
            wait_for_ranks(run, 0.0)
        second.kill()
        wait_for_ranks(run, 10.0)
    join_ranks(run)
    with pytest.raises(BusyError):
        wait_for_ranks(run, 0.0)


def manifest(run, driver):
    record = {"name": "j", "kind": "farm", "source": "j.py", "sha256": "", "seed": 0}
    job = {**record, "resources": {}, "assignments": {}}
    Manifest(id=run.id, argv=[], directory="", created=now(), driver=driver, job=job).write(
        run.manifest
    )


def test_where_the_file_system_has_no_locks_the_manifest_counts(tmp_path, monkeypatch):
    def refuse(descriptor, operation):
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    run = rundir.create(tmp_path, "job")
    monkeypatch.setattr(fcntl, "flock", refuse)
    here = Driver.this_process()
    for driver in (None, here, here.model_copy(update={"pid": 2**22 + 1})):
        manifest(run, driver)
        with driving(run):
            pass
    for driver in (
        here.model_copy(update={"host": "elsewhere"}),
        here.model_copy(update={"pid": os.getppid(), "started": _started(os.getppid())}),
    ):
        manifest(run, driver)
        with pytest.raises(BusyError, match="this file system has no locks"), driving(run):
            pass


def _started(pid: int) -> float:
    import psutil

    return psutil.Process(pid).create_time()
