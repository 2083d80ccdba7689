"""A call of a function, pickled, and its answer."""

from __future__ import annotations

import pickle
from concurrent.futures import Future
from typing import Any

from hpckit.run.engines import WorkerDied


def called(payload: bytes) -> tuple[bool, bytes]:
    """Call a function; return whether it returned, and what it returned or raised, pickled."""
    try:
        function, args, kwargs = pickle.loads(payload)
        returned = function(*args, **kwargs)
    except BaseException as error:
        try:
            return False, pickle.dumps(error, pickle.HIGHEST_PROTOCOL)
        except Exception:
            return False, pickle.dumps(RuntimeError(repr(error)))
    try:
        return True, pickle.dumps(returned, pickle.HIGHEST_PROTOCOL)
    except Exception as error:
        return False, pickle.dumps(WorkerDied(f"the worker process could not answer: {error!r}"))


def settle(future: Future[Any], payload: bytes, *, good: bool) -> None:
    """End a future with what its call returned, or with what it raised."""
    try:
        what = pickle.loads(payload)
    except Exception as error:
        good, what = False, RuntimeError(f"what a worker sent does not unpickle: {error!r}")
    end = future.set_result if good else future.set_exception
    end(what)
