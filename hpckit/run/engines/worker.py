"""A worker process of the engine `processes`: it takes calls from a socket, one after another."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections import deque
from pathlib import Path
from socket import SHUT_WR, socket

from hpckit.processes import die_with_pipe
from hpckit.run.engines import own_log
from hpckit.run.engines.calls import called
from hpckit.run.engines.frames import CALL, FAILURE, GIVEN_BACK, RESULT, Message, receive, send
from hpckit.run.logs import capture_descriptors, capture_task_output


def serve(channel: socket, log: Path) -> None:
    """Work until the other end of the channel is closed for writing, or a call fails.

    No task makes a call fail, so that what does has harmed this process.
    """
    begin(log)
    inbox = Inbox(channel)
    good = True
    while good and (call := inbox.take()) is not None:
        good, payload = called(call.payload)
        inbox.answer(Message(RESULT if good else FAILURE, call.number, payload))
    channel.shutdown(SHUT_WR)


def begin(log: Path) -> None:
    """Make this process a worker: it ends with the driver, and what it prints goes to a log."""
    driver = multiprocessing.parent_process()
    assert driver is not None
    # What its tasks start is to end with it.
    os.setpgrp()
    # Its fork server would outlive it: each worker holds the pipe on which that waits.
    die_with_pipe(driver.sentinel)
    # Ctrl-C reaches the whole process group; the driver alone decides what it means.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    logged = own_log(log)
    capture_descriptors(logged)
    capture_task_output(logged)


class Inbox:
    """Calls that have arrived and are not begun.

    A thread reads them while this process is at another, so that the next one is at hand, the
    driver never waits for a worker, and what is not begun can be given back.
    """

    def __init__(self, channel: socket) -> None:
        self._channel = channel
        self._calls: deque[Message] = deque()
        self._changed = threading.Condition()
        self._is_open = True
        self._pid = os.getpid()
        self._sending = threading.Lock()
        threading.Thread(target=self._run, daemon=True).start()

    def take(self) -> Message | None:
        """Return the next call, None at the end."""
        with self._changed:
            self._changed.wait_for(lambda: self._calls or not self._is_open)
            return self._calls.popleft() if self._calls else None

    def answer(self, message: Message) -> None:
        """Send a message; a driver that is gone needs none.

        A child that a task has forked and left running must not answer for its parent.
        """
        if os.getpid() != self._pid:
            os._exit(0)
        with self._sending:
            try:
                send(self._channel, message)
            except ConnectionError:
                self._is_open = False

    def _run(self) -> None:
        while (message := receive(self._channel)) is not None:
            if message.kind == CALL:
                with self._changed:
                    self._calls.append(message)
                    self._changed.notify()
            else:
                self._give_back(message.number)
        with self._changed:
            self._is_open = False
            self._changed.notify()

    def _give_back(self, number: int) -> None:
        with self._changed:
            if number not in [call.number for call in self._calls]:
                return
            self._calls = deque(call for call in self._calls if call.number != number)
        self.answer(Message(GIVEN_BACK, number))
