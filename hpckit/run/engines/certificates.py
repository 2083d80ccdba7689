"""Certificates of one run: who has its key is let in, nobody else."""

from __future__ import annotations

import shutil
from pathlib import Path

import cryptography  # noqa: F401  (for Security.temporary, which imports it late)
from distributed import Security

from hpckit.store.contact import write_private

CERTIFICATE, KEY = "certificate.pem", "key.pem"


def make_certificates(folder: Path) -> Security:
    """Make a key and its certificate in a new folder that is its owner's alone."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(mode=0o700)
    made = Security.temporary()
    write_private(folder / CERTIFICATE, made.tls_ca_file)
    write_private(folder / KEY, made.tls_worker_key)
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
