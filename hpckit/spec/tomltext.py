"""TOML text as a table, and its errors as ours."""

from __future__ import annotations

import re
import tomllib
from typing import Any

from hpckit.errors import SpecError

_PLACE = re.compile(r"\s*\(at (?:line (\d+), column \d+|end of document)\)$")


def parse_toml(text: str) -> dict[str, Any]:
    """Return the table of a TOML text.

    Raises
    ------
    SpecError
        It is none; with the line.
    """
    try:
        # A byte order mark is no TOML; editors on Windows write one.
        return tomllib.loads(text.removeprefix("\ufeff"))
    except tomllib.TOMLDecodeError as error:
        place = _PLACE.search(str(error))
        line = int(place[1]) if place and place[1] else text.count("\n") + 1
        problem = _PLACE.sub("", str(error))
        raise SpecError(f"is not TOML: {problem}", line=line) from None
    except RecursionError:
        raise SpecError("is not TOML that is read here: it is nested too deeply") from None
