"""A Celery worker, from its start to its end.

Celery takes calls from the broker, each into a thread; a `Workshop` does the rest. To load a
job is to execute it: a worker works on its own user's run directories alone, as their manifests
have them, and the broker's password is all that keeps others from ordering that.
"""

from __future__ import annotations

import logging
import os
import signal
import time
import warnings
from types import FrameType
from typing import Any

from celery.worker import WorkController, state

from hpckit.run.celery import broker as keys
from hpckit.run.celery.app import TASK, BatchApp
from hpckit.run.celery.broker import Broker
from hpckit.run.celery.workshop import Workshop, tell

ECHO_SECONDS = 0.5
"""A launcher may send a signal to the process and to its group: that is one wish."""

LAST_WORDS_SECONDS = 1.0
"""What the worker gets to say which calls it has given up."""


def work(broker: Broker, size: int) -> int:
    """Work on calls until a signal comes; return the exit code.

    Parameters
    ----------
    size
        How many calls at a time.

    Raises
    ------
    LaunchError
        The broker does not answer, or refuses the password.
    """
    workshop = Workshop(broker, size)
    _be_quiet()
    controller = _controller(workshop)
    _heed_signals(workshop)
    workshop.open()
    tell(f"worker {workshop.name}: {size} tasks at a time, from the broker at {broker}")
    try:
        controller.start()
    finally:
        workshop.close()
    tell(f"worker {workshop.name}: worked on {workshop.served} batches")
    return int(controller.exitcode or 0)


def _controller(workshop: Workshop) -> Any:
    app = BatchApp(workshop.broker)

    @app.task(name=TASK)  # type: ignore[untyped-decorator]
    def batch(text: str) -> None:
        workshop.serve(text)

    app.finalize()
    return WorkController(
        app=app,
        hostname=f"hpckit@{workshop.name}",
        pool_cls="threads",
        concurrency=workshop.size,
        queues=[keys.QUEUE],
        without_mingle=True,
        without_gossip=True,
        without_heartbeat=True,
    )


def _heed_signals(workshop: Workshop) -> None:
    """End at the first signal once all is answered, at the second at once."""
    first: list[float] = []

    def heed(signum: int, frame: FrameType | None) -> None:
        if not first:
            first.append(time.monotonic())
            state.should_stop = 0
            at = f": {workshop.held} at work, again ends them at once" if workshop.held else ""
            tell(f"takes no more calls{at}")
            return
        if time.monotonic() - first[0] < ECHO_SECONDS:
            return
        workshop.kill()
        due = time.monotonic() + LAST_WORDS_SECONDS
        while workshop.held and time.monotonic() < due:
            time.sleep(0.02)
        os._exit(1)

    for signum in (signal.SIGINT, signal.SIGTERM):
        signal.signal(signum, heed)


def _be_quiet() -> None:
    """Let hpckit say what there is to say."""
    for name in ("celery", "kombu"):
        logging.getLogger(name).setLevel(logging.CRITICAL + 1)
    warnings.filterwarnings("ignore", module="celery")
