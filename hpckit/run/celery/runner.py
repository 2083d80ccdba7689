"""A process that works on the batches which it reads from a pipe, for a Celery worker.

Each driver gets fresh ones: what a job has imported for an earlier run is not what a later run
finds in its files.
"""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from hpckit.processes import die_with_pipe, ending
from hpckit.variables import BROKER

LOOK_SECONDS = 0.5
"""Between two looks whether it lives: what it has started may hold its pipe open."""

GRACE_SECONDS = 2.0
MAXRSS_BYTES = 1024
"""wait4(2) counts ru_maxrss in kB."""

_LENGTH = 8


class RunnerDied(Exception):
    """The process ended at a batch."""

    def __init__(self, reason: str, peak_bytes: int | None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.peak_bytes = peak_bytes


class Runner:
    """Such a process, seen from the worker.

    Parameters
    ----------
    session
        The driver that it works for.
    log
        The path of its log, in whose name ``{pid}`` stands for its process id.
    directory
        Its working directory.
    threads
        The variables that limit numerical libraries.
    """

    def __init__(self, session: str, log: Path, directory: str, threads: dict[str, str]) -> None:
        self.session = session
        # Their tasks have no business with the broker.
        variables = {name: text for name, text in os.environ.items() if name != BROKER}
        reading, self._lifeline = os.pipe()
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", __name__, str(reading), str(log)],
                cwd=directory,
                env={**variables, **threads},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                pass_fds=[reading],
                process_group=0,
                bufsize=0,
            )
        except BaseException:
            os.close(self._lifeline)
            raise
        finally:
            os.close(reading)
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._calls, self._answers = self._process.stdin.fileno(), self._process.stdout.fileno()
        self._poll = select.poll()
        self._poll.register(self._answers, select.POLLIN)
        self._lock = threading.Lock()

    def work(self, call: bytes) -> bytes:
        """Return what the process answers to a call.

        Raises
        ------
        RunnerDied
            It ended instead.
        """
        try:
            _write(self._calls, len(call).to_bytes(_LENGTH, "little") + call)
            return self._read(int.from_bytes(self._read(_LENGTH), "little"))
        except (OSError, EOFError):
            reason, peak = self._buried()
            raise RunnerDied(reason, peak) from None

    def kill(self) -> None:
        """End the process now, and what its tasks have started; another thread buries it."""
        with self._lock:
            if self._process.returncode is None:
                self._kill_group()

    def end(self) -> None:
        """End the process, which has nothing to do."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._buried()

    def _kill_group(self) -> None:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)

    def _read(self, size: int) -> bytes:
        data = bytearray()
        while len(data) < size:
            ready = self._poll.poll(LOOK_SECONDS * 1000)
            if not ready and self._has_ended():
                raise EOFError
            if ready:
                part = os.read(self._answers, min(size - len(data), 1 << 20))
                if not part:
                    raise EOFError
                data += part
        return bytes(data)

    def _has_ended(self) -> bool:
        """Tell whether it has ended, without reaping it: its process id stays its own."""
        flags = os.WEXITED | os.WNOHANG | os.WNOWAIT
        return os.waitid(os.P_PID, self._process.pid, flags) is not None

    def _buried(self) -> tuple[str, int | None]:
        """Reap the process; return how it ended and its peak memory."""
        with self._lock:
            self._kill_group_unless_ended()
            _, status, used = os.wait4(self._process.pid, 0)
            self._kill_group()
            code = os.waitstatus_to_exitcode(status)
            self._process.returncode = code
        os.close(self._lifeline)
        for stream in (self._process.stdin, self._process.stdout):
            assert stream is not None
            stream.close()
        peak = used.ru_maxrss * MAXRSS_BYTES or None
        return f"the worker process {ending(code)}", peak

    def _kill_group_unless_ended(self) -> None:
        """Give it a moment to end: it closes its pipe before it has a status."""
        due = time.monotonic() + GRACE_SECONDS
        while time.monotonic() < due:
            if self._has_ended():
                return
            time.sleep(0.01)
        self._kill_group()


def main() -> None:
    """Be such a process."""
    lifeline, log = int(sys.argv[1]), Path(sys.argv[2])
    os.set_inheritable(lifeline, False)
    die_with_pipe(lifeline)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    calls, answers = os.dup(0), os.dup(1)
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 0)
    # Until its log is there, what it has to say goes where the worker speaks.
    os.dup2(2, 1)
    serve = _server(log)
    while head := _read_all(calls, _LENGTH):
        answer = serve(_read_all(calls, int.from_bytes(head, "little")))
        _write(answers, len(answer).to_bytes(_LENGTH, "little") + answer)


def _server(log: Path) -> Callable[[bytes], bytes]:
    from hpckit.run.engines import own_log
    from hpckit.run.logs import capture_descriptors, capture_task_output

    own = own_log(log)
    capture_descriptors(own)
    capture_task_output(own)
    return _serve


def _serve(data: bytes) -> bytes:
    from hpckit.run.batch import run_batch
    from hpckit.run.celery.wire import decode_call, encode_reply

    call = decode_call(data)
    return encode_reply(call.id, run_batch(call.spec, call.indices, call.attempt))


def _read_all(descriptor: int, size: int) -> bytes:
    """Read so many bytes, or fewer if the worker ends."""
    data = bytearray()
    while len(data) < size and (part := os.read(descriptor, size - len(data))):
        data += part
    return bytes(data)


def _write(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


if __name__ == "__main__":
    main()
