"""Certificates of one run: who has its key is let in, nobody else."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID
from distributed import Security

from hpckit.store.contact import make_contact, write_private

CERTIFICATE, KEY = "certificate.pem", "key.pem"

BEFORE, AFTER = timedelta(days=1), timedelta(days=365)
"""For which a certificate holds: before it is made too, since clocks of nodes may be behind."""


def make_certificates(folder: Path) -> Security:
    """Make a key and its certificate in a folder that is its owner's alone.

    Raises
    ------
    StoreError
        They cannot be written.
    """
    make_contact(folder)
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    text = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    write_private(folder / KEY, text.decode())
    write_private(folder / CERTIFICATE, _certificate(key).public_bytes(Encoding.PEM).decode())
    return read_certificates(folder)


def _certificate(key: rsa.RSAPrivateKey) -> x509.Certificate:
    """Return a certificate that a key itself has signed."""
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "hpckit")])
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - BEFORE)
        .not_valid_after(now + AFTER)
        .sign(key, SHA256())
    )


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
