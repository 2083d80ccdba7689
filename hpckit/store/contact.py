"""Where the driver of a run is found while it works, in a folder that is its owner's alone."""

from __future__ import annotations

import os
import shutil
from contextlib import suppress
from pathlib import Path

from hpckit.store.atomic import explained, write_bytes

ADDRESS, DASHBOARD = "address", "dashboard"


def make_contact(folder: Path) -> None:
    """Make the folder, with nothing in it that an earlier driver has left.

    Raises
    ------
    StoreError
        It cannot be made.
    """
    end_contact(folder)
    with explained(folder):
        # It may be there still: NFS keeps files that somebody has open.
        folder.mkdir(mode=0o700, exist_ok=True)
        folder.chmod(0o700)


def tell_address(folder: Path, driver: str, address: str) -> None:
    """Leave word where the scheduler of a driver is."""
    write_private(folder / f"{ADDRESS}-{driver}", address)


def told_address(folder: Path, driver: str) -> str:
    """Return where the scheduler of a driver is: another one has pilots of its own.

    Raises
    ------
    OSError
        It is not there any more.
    """
    return (folder / f"{ADDRESS}-{driver}").read_text()


def tell_dashboard(folder: Path, socket: Path) -> None:
    """Leave word where this machine has the dashboard's socket."""
    write_private(folder / DASHBOARD, f"{os.uname().nodename}:{socket}")


def forwarding(folder: Path) -> str | None:
    """Return the line that brings the dashboard to the user's own machine, if there is one."""
    with suppress(OSError):
        host, _, socket = (folder / DASHBOARD).read_text().partition(":")
        return f"ssh -N -L 8787:{socket} {host}  (then http://localhost:8787/status)"
    return None


def end_contact(folder: Path) -> None:
    """Leave nothing that would let anyone in."""
    shutil.rmtree(folder, ignore_errors=True)


def write_private(path: Path, text: str) -> None:
    """Write a file that is its owner's alone, whole before anyone finds it.

    Raises
    ------
    StoreError
        It cannot be written.
    """
    # A temporary file, which takes the place of whatever there is, has mode 0600.
    write_bytes(path, text.encode())
