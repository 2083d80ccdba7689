"""A call of a function, pickled, and its answer."""

from __future__ import annotations

import pickle
from concurrent.futures import Future
from typing import Any


def called(payload: bytes) -> bytes:
    """Call a function; return whether it returned, and what it returned or raised, pickled."""
    try:
        function, args, kwargs = pickle.loads(payload)
        return pickle.dumps((True, function(*args, **kwargs)), pickle.HIGHEST_PROTOCOL)
    except BaseException as error:
        try:
            return pickle.dumps((False, error), pickle.HIGHEST_PROTOCOL)
        except Exception:
            return pickle.dumps((False, RuntimeError(repr(error))))


def settle(future: Future[Any], answer: bytes) -> None:
    """End a future with an answer."""
    try:
        good, what = pickle.loads(answer)
    except Exception as error:
        good, what = False, RuntimeError(f"what a worker sent does not unpickle: {error!r}")
    if good:
        future.set_result(what)
    else:
        future.set_exception(what)
