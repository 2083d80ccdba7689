"""One task of a command job: a program in a scratch directory, and what is left of it."""

from __future__ import annotations

import errno
import os
import select
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import chain
from pathlib import Path
from typing import Any, BinaryIO

from hpckit.errors import HpckitError, LaunchError, StoreError
from hpckit.processes import ending, leash, uninterrupted
from hpckit.run.context import Task
from hpckit.run.pickers import NotPickedError, described, pick
from hpckit.spec.command import Command
from hpckit.spec.messages import shown
from hpckit.store.atomic import explained, free_bytes, replacing, sync
from hpckit.store.rundir import RunDir
from hpckit.variables import LAUNCHER

LOGGED_BYTES = 16 << 10
"""Of the beginning, and again of the end, of a command's output go to the run's log."""

SIGNAL_SECONDS = 0.1
"""After which a signal is heeded at the latest, while a command runs."""

LEAST_FREE = 1 << 20
"""Bytes below which a disk counts as full."""

TOLD_LINES = 10
"""Of the end of the output stand in the message about a command that failed."""

_SCRATCH_VARIABLES = ("TMPDIR", "SLURM_TMPDIR")
_LONGEST_LINE = 300
_UNTIL_ORPHANED = 'read -r _; kill -s KILL -- "-$1"; rm -rf -- "$2"'


class CommandFailed(HpckitError):
    """A command that ended badly, or left no result where the job file says."""


def run_command(command: Command, run: RunDir, task: Task, /, **params: Any) -> dict[str, Any]:
    """Run a command for one task and pick up its results.

    It works in a scratch directory on the node's own disk ($TMPDIR, else $SLURM_TMPDIR, else the
    system's), an MPI program in one that all nodes see; it is removed whatever happens. All that
    it started ends with it, and with this process. Files to keep are copied even if it failed:
    they tell why.

    Parameters
    ----------
    params
        The values of the job's parameters; ``{seed}`` and ``{index}`` are the task's own.

    Returns
    -------
    dict
        The results by name, as `hpckit.run.pickers.pick` gives them.

    Raises
    ------
    CommandFailed
        It ended with a status other than 0 or by a signal, or a result is not there; or a file
        to keep lies outside of the scratch directory; or the task's own values forbid to start
        it.
    LaunchError
        The program is not there or cannot be started, or there is no scratch directory: so it
        would be with any other task.
    StoreError
        The files to keep cannot be written.
    """
    argv = command.fill({**params, "seed": task.seed, "index": task.index})
    if command.ranks > 1:
        argv = [*_launcher(command.ranks), *argv]
    with _scratch(run if command.ranks > 1 else None) as scratch:
        folder, output = scratch / "work", scratch / "output"
        status = _run(command, argv, folder, output)
        try:
            _log(output)
            if status != 0:
                told = f"{shlex.join(argv)}: {ending(status)}{_full(scratch)}"
                raise CommandFailed(told + _last_lines(output))
            return _results(command, argv, folder, output)
        finally:
            _keep(command.keep, folder, run.kept / str(task.index))


def _launcher(ranks: int) -> list[str]:
    words = shlex.split(os.environ.get(LAUNCHER, ""))
    return words or ["mpiexec", "-n", str(ranks)]


@contextmanager
def _scratch(shared: RunDir | None) -> Iterator[Path]:
    parent = _local_folder() if shared is None else str(shared.path)
    try:
        scratch = tempfile.TemporaryDirectory(
            prefix="hpckit-", dir=parent, ignore_cleanup_errors=True
        )
        Path(scratch.name, "work").mkdir()
        Path(scratch.name, "output").touch()
    except OSError as error:
        raise LaunchError(
            f"{parent or 'temporary files'}: no scratch directory can be made there "
            f"({error.strerror or error}): set TMPDIR to a folder on the node's own disk"
        ) from None
    with scratch as name:
        yield Path(name).resolve()


def _local_folder() -> str | None:
    given = [os.environ[name] for name in _SCRATCH_VARIABLES if os.environ.get(name)]
    # Sites set them on all nodes, also where no such folder is.
    return next((path for path in given if Path(path).is_dir()), None)


def _run(command: Command, argv: Sequence[str], folder: Path, output: Path) -> int:
    """Return the exit status, or minus the signal; no process of the command is left then."""
    # An interrupt that broke into the start of a process could lose it, and hang the wait.
    with output.open("wb") as stream, uninterrupted() as signals:
        process = _start(command, argv, folder, stream)
        try:
            with _guarded(process.pid, folder.parent):
                _wait(process.pid, signals)
        finally:
            # As long as the process is not reaped, its number cannot be another group's.
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)
            status = process.wait()
    return status


def _wait(pid: int, signals: Sequence[int]) -> None:
    """Wait until a process has ended, which is not reaped, or a signal has come."""
    if sys.platform == "linux":
        descriptor = os.pidfd_open(pid)
        try:
            ended = select.poll()
            ended.register(descriptor, select.POLLIN)
            while not signals and not ended.poll(1000 * SIGNAL_SECONDS):
                pass
        finally:
            os.close(descriptor)
    else:
        how = os.WEXITED | os.WNOWAIT | os.WNOHANG
        while not signals and os.waitid(os.P_PID, pid, how) is None:
            time.sleep(SIGNAL_SECONDS)


def _start(
    command: Command, argv: Sequence[str], folder: Path, output: BinaryIO
) -> subprocess.Popen[bytes]:
    try:
        return subprocess.Popen(
            argv,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            preexec_fn=leash(),
            start_new_session=True,
        )
    except OSError as error:
        # The fault is the task's where its values are, and would be every other's elsewhere.
        is_own = command.ranks == 1 and argv[0] != command.argv[0]
        is_own = is_own or error.errno == errno.E2BIG
        raise (CommandFailed if is_own else LaunchError)(_unstartable(argv[0], error)) from None


@contextmanager
def _guarded(group: int, scratch: Path) -> Iterator[None]:
    """Have a process group and its scratch directory removed if this process is killed.

    The leash holds the command's first process only, and a killed worker removes no directory:
    a small shell does both when the pipe from this process ends.
    """
    try:
        guard = subprocess.Popen(
            ["/bin/sh", "-c", _UNTIL_ORPHANED, "sh", str(group), str(scratch)],
            cwd="/",
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
    except OSError as error:
        raise LaunchError(_unstartable("/bin/sh", error)) from None
    with guard:
        try:
            yield
        finally:
            guard.kill()


def _unstartable(program: str, error: OSError) -> str:
    if isinstance(error, FileNotFoundError) and "/" not in program:
        return (
            f"{program}: no such program on PATH: load its module or install it, "
            "or write its path into the job file"
        )
    if isinstance(error, FileNotFoundError) and Path(program).exists():
        return f"{program}: the interpreter in its first line is not there: correct that line"
    if isinstance(error, FileNotFoundError):
        return f"{program}: no such program: correct its path in the job file"
    if isinstance(error, PermissionError):
        return f"{program}: is no program that may be run: chmod +x it, or correct its path"
    if error.errno == errno.ENOEXEC:
        return f"{program}: is no program of this machine: a script begins with a line as #!/bin/sh"
    return f"{program}: cannot be started: {error.strerror}"


def _log(output: Path) -> None:
    """Print the output, which TaskStream sends to the run's log; a long one without its middle."""
    left_out = output.stat().st_size - 2 * LOGGED_BYTES
    with output.open("rb") as stream:
        if left_out <= 0:
            text = stream.read().decode(errors="replace")
        else:
            head = stream.read(LOGGED_BYTES).decode(errors="replace")
            text = f"{head}\n[hpckit: {left_out} bytes are left out here]\n{_tail(stream)}"
    if text:
        print(text.removesuffix("\n"), flush=True)


def _tail(stream: BinaryIO) -> str:
    size = stream.seek(0, os.SEEK_END)
    stream.seek(max(size - LOGGED_BYTES, 0))
    return stream.read().decode(errors="replace")


def _full(scratch: Path) -> str:
    """Say so if no space is left: the command's own words about it found none either."""
    if free_bytes(scratch) >= LEAST_FREE:
        return ""
    return (
        f"; no space is left in its scratch directory on {os.uname().nodename}: set TMPDIR, or the "
        "site's scratch, to a larger disk"
    )


def _last_lines(output: Path) -> str:
    with output.open("rb") as stream:
        lines = _tail(stream).rstrip().splitlines()[-TOLD_LINES:]
    if not lines:
        return " and printed nothing"
    return "\n".join(["; its output ends with:", *(line[-_LONGEST_LINE:] for line in lines)])


def _results(command: Command, argv: Sequence[str], folder: Path, output: Path) -> dict[str, Any]:
    results = {}
    for name, picker in command.results.items():
        try:
            results[name] = pick(picker, folder, output)
        except NotPickedError as error:
            raise CommandFailed(
                f"{shlex.join(argv)}: no result {name!r} ({described(picker)}): {error}"
            ) from None
    return results


def _keep(globs: Sequence[str], folder: Path, target: Path) -> None:
    """Copy the files that globs name, and those in folders that they name, to `target`."""
    if not globs:
        return
    # An earlier attempt at this task may have left other files.
    shutil.rmtree(target, ignore_errors=True)
    found = {glob: list(_matches(folder, glob)) for glob in globs}
    for glob, paths in found.items():
        if not paths:
            print(f"hpckit: keep = {shown(glob)}: the command left no such file", flush=True)
    for path in dict.fromkeys(chain.from_iterable(found.values())):
        _copy(path, target / path.relative_to(folder))
    if target.is_dir():
        with explained(target):
            sync(target.parent)


def _copy(path: Path, copy: Path) -> None:
    try:
        with explained(copy):
            copy.parent.mkdir(parents=True, exist_ok=True)
        with replacing(copy) as temporary:
            shutil.copyfile(path.resolve(), temporary)
    except StoreError as error:
        if isinstance(error.__cause__, OSError) and error.__cause__.errno == errno.ENAMETOOLONG:
            raise CommandFailed(f"keep: {path.name}: the name is too long to be kept") from None
        raise


def _matches(folder: Path, glob: str) -> Iterator[Path]:
    for match in sorted(folder.glob(glob)):
        _check_inside(match, folder, glob)
        for path in sorted(match.rglob("*")) if match.is_dir() else [match]:
            _check_inside(path, folder, glob)
            if path.is_file():
                _check_readable(path, folder, glob)
                yield path


def _check_readable(path: Path, folder: Path, glob: str) -> None:
    if not os.access(path, os.R_OK):
        raise CommandFailed(
            f"keep = {shown(glob)}: {path.relative_to(folder)} cannot be read: have the command "
            "give it to its owner"
        )


def _check_inside(path: Path, folder: Path, glob: str) -> None:
    # A link that leads nowhere is nothing to copy.
    if ".." in path.parts or (path.exists() and not path.resolve().is_relative_to(folder)):
        raise CommandFailed(
            f"keep = {shown(glob)}: {path.relative_to(folder)} leads out of the scratch directory: "
            "have the command copy the file instead"
        )
