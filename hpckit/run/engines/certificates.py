"""Certificates of one run: who has its key is let in, nobody else."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import cryptography  # noqa: F401  (for Security.temporary, which imports it late)
from distributed import Security

CERTIFICATE, KEY, ADDRESS = "certificate.pem", "key.pem", "address"


def make_certificates(folder: Path) -> Security:
    """Make a key and its certificate in a new folder that is its owner's alone."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(mode=0o700)
    made = Security.temporary()
    _write(folder / CERTIFICATE, made.tls_ca_file)
    _write(folder / KEY, made.tls_worker_key)
    return read_certificates(folder)


def read_certificates(folder: Path) -> Security:
    """Return what `make_certificates` has made; every connection is encrypted and needs the key."""
    certificate, key = str(folder / CERTIFICATE), str(folder / KEY)
    roles = ("client", "scheduler", "worker")
    own = {
        f"tls_{role}_{what}": path
        for role in roles
        for what, path in (("cert", certificate), ("key", key))
    }
    return Security(require_encryption=True, tls_ca_file=certificate, **own)


def tell_address(folder: Path, address: str) -> None:
    """Leave word where the scheduler is."""
    _write(folder / ADDRESS, address)


def told_address(folder: Path) -> str:
    """Return where the scheduler is.

    Raises
    ------
    OSError
        It is not there any more.
    """
    return (folder / ADDRESS).read_text()


def remove_certificates(folder: Path) -> None:
    """Leave nothing that would let anyone in."""
    shutil.rmtree(folder, ignore_errors=True)


def _write(path: Path, text: str) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
