"""A farm's calls and what comes of them, as JSON: reading it never executes anything.

Arrays travel as base64 of their little-endian bytes. Whatever is read is checked; what does
not fit raises `WireError` with the reason.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, NoReturn

from pydantic import TypeAdapter, ValidationError

from hpckit import errors
from hpckit.errors import HpckitError
from hpckit.run.batch import FarmSpec, Outcome
from hpckit.run.celery.broker import FORMAT
from hpckit.run.celery.wire_arrays import (
    WireError,
    array_from,
    array_to,
    block_from,
    block_to,
    entry,
    require,
)
from hpckit.run.usage import Used
from hpckit.threads import VARIABLES

__all__ = [
    "FORMAT",
    "Begun",
    "Call",
    "Died",
    "Refused",
    "WireError",
    "decode_call",
    "decode_reply",
    "encode_call",
    "encode_reply",
]

MAX_TASKS = 1 << 24
"""In a call: a range may claim any number in a few bytes."""

_ID = re.compile(r"([0-9a-f]{16})\.(\d{1,12})\.(\d{1,12})")
_THREADS = re.compile(r"[0-9]{1,6}(,[0-9]{1,6}){0,7}")
_TROUBLES: dict[str, type[HpckitError]] = {
    name: found
    for name, found in vars(errors).items()
    if isinstance(found, type) and issubclass(found, HpckitError)
}


@dataclass(frozen=True)
class Call:
    """A batch on its way to a worker.

    Attributes
    ----------
    session, number, turn
        The driver that sends it, the number that it gave it, and how often it was sent before.
    directory
        The working directory of the tasks.
    threads
        The variables that limit numerical libraries.
    """

    session: str
    number: int
    turn: int
    spec: FarmSpec
    indices: Sequence[int]
    attempt: int
    directory: str
    threads: Mapping[str, str]

    @property
    def id(self) -> str:
        """What tells this message from all others."""
        return f"{self.session}.{self.number}.{self.turn}"


@dataclass(frozen=True)
class Begun:
    """A worker has begun a call."""

    worker: str


@dataclass(frozen=True)
class Died:
    """The process at a call died."""

    reason: str
    peak_bytes: int | None = None


@dataclass(frozen=True)
class Refused:
    """A worker will not work on a call."""

    reason: str


Reply = Begun | Outcome | Died | Refused
_adapters: dict[type[Any], TypeAdapter[Any]] = {}
_PLAIN: dict[str, type[Any]] = {"begun": Begun, "died": Died, "refused": Refused}


def encode_call(call: Call) -> str:
    """Write a call."""
    return json.dumps(
        {
            "format": FORMAT,
            "call": call.id,
            "spec": _adapter(FarmSpec).dump_python(call.spec, mode="json"),
            "indices": _indices_to(call.indices),
            "attempt": call.attempt,
            "directory": call.directory,
            "threads": dict(call.threads),
        }
    )


def decode_call(text: str | bytes) -> Call:
    """Read a call.

    Raises
    ------
    WireError
        It is none.
    """
    raw = _loaded(text)
    require(raw.get("format") == FORMAT, f"is of format {raw.get('format')!r}, not {FORMAT}")
    session, number, turn = _parts(entry(raw, "call", str))
    attempt = entry(raw, "attempt", int)
    require(attempt > 0, f"attempt {attempt} is below 1")
    return Call(
        session=session,
        number=number,
        turn=turn,
        spec=_plain(FarmSpec, entry(raw, "spec", dict)),
        indices=_indices_from(entry(raw, "indices", dict)),
        attempt=attempt,
        directory=entry(raw, "directory", str),
        threads=_threads_from(entry(raw, "threads", dict)),
    )


def encode_reply(call: str, reply: Reply) -> bytes:
    """Write what a worker says of the call with an id."""
    if isinstance(reply, Outcome):
        return json.dumps({"call": call, "outcome": _outcome_to(reply)}).encode()
    name = type(reply).__name__.lower()
    return json.dumps({"call": call, name: vars(reply)}).encode()


def decode_reply(data: bytes) -> tuple[str, int, int, Reply]:
    """Read what a worker says: session, number and turn of the call, and the reply.

    Raises
    ------
    WireError
        It is no reply; its `call` names the call if that much could be read.
    """
    raw = _loaded(data)
    parts = _parts(entry(raw, "call", str))
    try:
        return *parts, _reply_from(raw)
    except WireError as error:
        error.call = parts
        raise


def _reply_from(raw: dict[str, Any]) -> Reply:
    require(len(raw) == 2, "has not one reply")
    (kind,) = raw.keys() - {"call"}
    content = entry(raw, kind, dict)
    if kind == "outcome":
        return _outcome_from(content)
    require(kind in _PLAIN, f"has the unknown reply {kind!r}")
    reply: Reply = _plain(_PLAIN[kind], content)
    return reply


def _outcome_to(outcome: Outcome) -> dict[str, Any]:
    trouble = outcome.trouble
    return {
        "block": None if outcome.block is None else block_to(outcome.block),
        "trouble": None if trouble is None else [_name(trouble), str(trouble)],
        "nbytes": outcome.nbytes,
        "used": _adapter(Used).dump_python(outcome.used, mode="json"),
    }


def _outcome_from(raw: dict[str, Any]) -> Outcome:
    require(raw.keys() == {"block", "trouble", "nbytes", "used"}, f"has the entries {sorted(raw)}")
    block, trouble = raw["block"], raw["trouble"]
    return Outcome(
        block=None if block is None else block_from(entry(raw, "block", dict)),
        trouble=None if trouble is None else _trouble_from(entry(raw, "trouble", list)),
        nbytes=entry(raw, "nbytes", int),
        used=_plain(Used, entry(raw, "used", dict)),
    )


def _name(trouble: HpckitError) -> str:
    """Return the name of the nearest class that any hpckit knows."""
    return next(c.__name__ for c in type(trouble).__mro__ if c.__name__ in _TROUBLES)


def _trouble_from(raw: list[Any]) -> HpckitError:
    require(len(raw) == 2 and all(type(part) is str for part in raw), "has an unreadable error")
    require(raw[0] in _TROUBLES, f"has the unknown error {raw[0]!r}")
    return _TROUBLES[raw[0]](raw[1])


def _indices_to(indices: Sequence[int]) -> dict[str, Any]:
    if isinstance(indices, range):
        return {"range": [indices.start, indices.stop, indices.step]}
    import numpy as np

    return {"list": array_to(np.array(indices, np.int64))}


def _indices_from(raw: dict[str, Any]) -> Sequence[int]:
    indices: Sequence[int]
    if "range" in raw:
        bounds = entry(raw, "range", list)
        known = len(bounds) == 3 and all(type(n) is int and abs(n) < 1 << 62 for n in bounds)
        require(known, "has no range of tasks")
        require(bounds[2] > 0, f"has a range of step {bounds[2]}")
        indices = range(*bounds)
    else:
        array = array_from(entry(raw, "list", dict))
        require(array.ndim == 1 and array.dtype == "<i8", "has no list of tasks")
        indices = array.tolist()
    require(0 < len(indices) <= MAX_TASKS, f"has {len(indices)} tasks")
    require(min(indices[0], indices[-1]) >= 0, "has tasks below 0")
    return indices


def _threads_from(raw: dict[str, Any]) -> dict[str, str]:
    for name, value in raw.items():
        known = name in VARIABLES.values() and type(value) is str
        require(known and _THREADS.fullmatch(value) is not None, f"sets {name!r} to {value!r}")
    return raw


def _parts(call: str) -> tuple[str, int, int]:
    found = _ID.fullmatch(call)
    require(found is not None, f"is of the call {call!r}")
    assert found is not None
    return found[1], int(found[2]), int(found[3])


def _loaded(text: str | bytes) -> dict[str, Any]:
    try:
        raw = json.loads(text, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise WireError(f"is not JSON: {error}") from None
    require(isinstance(raw, dict), "is no JSON object")
    found: dict[str, Any] = raw
    return found


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number")


def _adapter(kind: type[Any]) -> TypeAdapter[Any]:
    if kind not in _adapters:
        _adapters[kind] = TypeAdapter(kind)
    return _adapters[kind]


def _plain(kind: type[Any], raw: dict[str, Any]) -> Any:
    """Read a dataclass of plain values."""
    unknown = raw.keys() - {field.name for field in fields(kind)}
    require(not unknown, f"has the unknown entries {sorted(unknown)}")
    try:
        return _adapter(kind).validate_json(json.dumps(raw), strict=True)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        key = ".".join(str(part) for part in first["loc"])
        raise WireError(f"{key}: {first['msg']}") from None
