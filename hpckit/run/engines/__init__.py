"""What executes the batches of a farm: each engine is a concurrent.futures.Executor.

An engine is made from the number of workers and the path of their logs, in whose name
``{pid}`` stands for a process id. It can do three things more than an executor: end when its
work is done, end at once, and say how a worker died.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import Executor
from importlib import import_module
from pathlib import Path

from hpckit.errors import UsageError
from hpckit.store.logs import BoundedLog

ENGINES = {
    "serial": "hpckit.run.engines.serial:SerialEngine",
    "threads": "hpckit.run.engines.threads:ThreadsEngine",
    "processes": "hpckit.run.engines.processes:ProcessesEngine",
}
DEFAULT = "processes"


class Engine(Executor):
    """An executor whose workers can be ended at once."""

    workers: int

    def close(self) -> None:
        """End the workers, which have nothing more to do."""
        self.shutdown()

    def kill(self) -> None:
        """End the workers now; what they were at is lost."""
        raise NotImplementedError(type(self).__name__)

    def death(self) -> str:
        """End the workers, one of which has died, and say how it died."""
        return "the worker process died"


def engine_factory(name: str) -> Callable[[int, Path], Engine]:
    """Return what makes the engine called `name`.

    Raises
    ------
    UsageError
        There is no such engine.
    """
    try:
        module, _, attribute = ENGINES[name].partition(":")
    except KeyError:
        raise UsageError(f"--engine {name!r}: there are {', '.join(ENGINES)}") from None
    factory: Callable[[int, Path], Engine] = getattr(import_module(module), attribute)
    return factory


def own_log(path: Path) -> BoundedLog:
    """Return the log of this process, from the path that an engine was given."""
    return BoundedLog(path.with_name(path.name.replace("{pid}", str(os.getpid()))))
