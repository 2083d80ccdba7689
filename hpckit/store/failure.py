"""The first failure of a rank, kept where the process that started the ranks finds it."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path


@dataclass(frozen=True)
class Failure:
    """What ended a rank.

    Attributes
    ----------
    text
        A traceback, or one line where the user gave something unusable.
    exit_code
        What hpckit ends with.
    """

    rank: int
    text: str
    exit_code: int

    def leave(self, path: Path) -> None:
        """Write it, unless another rank was first: that one's is the cause."""
        temporary = path.with_name(f".{path.name}.{self.rank}.tmp")
        with suppress(OSError):
            temporary.write_text(json.dumps(asdict(self)))
            # Unlike a rename this fails where there is one, and unlike an open file it is whole.
            path.hardlink_to(temporary)
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def read_failure(path: Path) -> Failure | None:
    """Return what a rank left, None where none did."""
    try:
        return Failure(**json.loads(path.read_text()))
    except (OSError, ValueError, TypeError):
        return None
