"""What tasks did on GPUs: a small file a card and process, gathered into the manifest."""

from __future__ import annotations

import json
import os
import platform
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Any


def leave_account(folder: Path, account: dict[str, Any], thread: int) -> None:
    """Write, or replace, the account of this thread's card.

    An account is worth less than the run: where none can be written, none is.
    """
    with suppress(OSError):
        folder.mkdir(exist_ok=True)
        name = f"{platform.node()}-{os.getpid()}-{thread}"
        temporary = folder / f".{name}"
        temporary.write_text(json.dumps(account))
        temporary.replace(folder / f"{name}.json")


def accounts(folder: Path) -> list[dict[str, Any]]:
    """Return all accounts that were left, by host and card."""
    found = []
    for path in folder.glob("[!.]*.json"):
        with suppress(OSError, ValueError):
            found.append(json.loads(path.read_text()))
    return sorted(found, key=lambda each: (each["host"], each["uuid"], each["pid"]))


def remove_accounts(folder: Path) -> None:
    """Remove the files, which the manifest has."""
    shutil.rmtree(folder, ignore_errors=True)
