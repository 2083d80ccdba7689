"""Starts the ranks of an spmd run on this machine, and waits for them."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO

from hpckit.errors import UsageError
from hpckit.processes import has_not_started, leash, uninterrupted
from hpckit.render.container import container_of, hpckit_argv, kept_variables
from hpckit.render.launcher import launcher_variables, mpiexec_argv
from hpckit.store.create import Run
from hpckit.store.image import ImageRecord, to_enter
from hpckit.store.logs import BoundedLog
from hpckit.store.manifest import Driver
from hpckit.store.progress import Report, read_progress
from hpckit.store.rundir import RunDir
from hpckit.threads import thread_variables
from hpckit.variables import DRIVER, IMAGE, NTASKS

POLL_SECONDS = 0.05
GRACE_SECONDS = 5.0
"""What ranks get to end by themselves before they are killed."""

STARTS = 3
"""Of a launcher that does not come to start any rank."""

SAID_LINES = 30
"""Of the end of stderr are kept, to be shown if no rank leaves a reason."""


def find_mpiexec() -> str:
    """Return the mpiexec of this Python environment, or else the one on the PATH.

    Raises
    ------
    UsageError
        There is none.
    """
    own = Path(sys.executable).with_name("mpiexec")
    found = str(own) if own.is_file() else shutil.which("mpiexec")
    if found is None:
        raise UsageError(
            "MPI ranks need mpiexec, and there is none: install MPI with "
            "pip install 'hpckit[mpi]', or load the site's MPI module"
        )
    return found


def allocated_nodes() -> int:
    """Return over how many nodes mpiexec may spread ranks: those of an allocation around us."""
    text = os.environ.get("SLURM_JOB_NUM_NODES", "")
    return int(text) if text.isdecimal() and int(text) else 1


def launch_line(run: Run, ranks: int) -> list[str]:
    """Return the command that runs the ranks of a run, in its image if it has one."""
    image = to_enter(run.manifest.image)
    container = None if image is None else container_of(run, image, [Path.cwd()])
    program = hpckit_argv(container, ["exec", str(run.dir.path)])
    return mpiexec_argv(find_mpiexec(), ranks, program)


def run_ranks(
    run: RunDir,
    argv: list[str],
    ranks: int,
    *,
    report: Report,
    echo: Callable[[str], None],
    threads: int = 1,
    image: ImageRecord | None = None,
    keep_open: Sequence[int] = (),
) -> tuple[int, list[str]]:
    """Run a launch line to its end.

    Parameters
    ----------
    report
        Gets the progress that rank 0 publishes.
    echo
        Gets what rank 0 prints, a line at a time.
    threads
        How many each rank may use.
    image
        That the launch line starts them in.
    keep_open
        Descriptors that the launcher inherits: a lock that it holds as long as it lives.

    Returns
    -------
    int
        The exit status, negative for a signal.
    list of str
        The last lines that launcher and ranks said on stderr.

    Raises
    ------
    KeyboardInterrupt
        Passed on after all ranks have been ended.
    """
    environment = _environment(ranks, threads, image)
    for _ in range(STARTS):
        code, said = _launch(run, argv, environment, report, echo, keep_open)
        if code == 0 or not any(map(has_not_started, said)):
            break
    return code, [line for line in said if line.strip()]


def _launch(
    run: RunDir,
    argv: list[str],
    environment: dict[str, str],
    report: Report,
    echo: Callable[[str], None],
    keep_open: Sequence[int],
) -> tuple[int, deque[str]]:
    said: deque[str] = deque(maxlen=SAID_LINES)
    # An interrupt that broke into `subprocess` could leave its lock held, and the wait for ever.
    with uninterrupted() as signals:
        launcher = _started(argv, environment, keep_open)
        readers = _readers(launcher, echo, BoundedLog(run.launcher_log), said)
        try:
            _watch(launcher, run, report, signals)
        finally:
            if launcher.returncode is None:
                _end(launcher)
    for reader in readers:
        reader.join(timeout=GRACE_SECONDS)
    return launcher.returncode, said


def _environment(ranks: int, threads: int, image: ImageRecord | None) -> dict[str, str]:
    return {
        **launcher_variables(allocated_nodes(), is_root=os.geteuid() == 0),
        **(os.environ if to_enter(image) is None else kept_variables(os.environ)),
        **({IMAGE: image.token} if image is not None else {}),
        **thread_variables(threads),
        NTASKS: str(ranks),
        DRIVER: Driver.this_process().token,
        "PYTHONUNBUFFERED": "1",
    }


def _started(
    argv: list[str], environment: dict[str, str], keep_open: Sequence[int]
) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        argv,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
        pass_fds=keep_open,
        preexec_fn=leash(signal.SIGTERM),
    )


def _readers(
    launcher: subprocess.Popen[bytes],
    echo: Callable[[str], None],
    log: BoundedLog,
    said: deque[str],
) -> list[threading.Thread]:
    """Read both streams until they end, whatever becomes of those who are told."""
    assert launcher.stdout is not None
    assert launcher.stderr is not None

    def note(line: bytes) -> None:
        log.write(line)
        said.append(_text(line))

    return [
        _reader(launcher.stdout, lambda line: echo(_text(line))),
        _reader(launcher.stderr, note),
    ]


def _text(line: bytes) -> str:
    return line.decode(errors="replace").rstrip("\n")


def _watch(
    launcher: subprocess.Popen[bytes], run: RunDir, report: Report, signals: Sequence[int]
) -> None:
    """Wait for the end of the launcher, or for a signal."""
    reported = 0.0
    while not signals:
        try:
            launcher.wait(POLL_SECONDS)
            return
        except subprocess.TimeoutExpired:
            if time.monotonic() - reported > 0.5 and (now := read_progress(run.progress)):
                reported = time.monotonic()
                report(now)


def _reader(stream: IO[bytes], take: Callable[[bytes], None]) -> threading.Thread:
    def read() -> None:
        with stream:
            for line in stream:
                take(line)

    thread = threading.Thread(target=read, daemon=True)
    thread.start()
    return thread


def _end(launcher: subprocess.Popen[bytes]) -> None:
    """End the launcher, which ends its ranks; then whatever is left of its session."""
    launcher.terminate()
    with suppress(subprocess.TimeoutExpired):
        launcher.wait(GRACE_SECONDS)
    with suppress(ProcessLookupError):
        os.killpg(launcher.pid, signal.SIGKILL)
    launcher.wait()
