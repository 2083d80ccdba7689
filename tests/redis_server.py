"""A Redis server of a test's own, with a password, which can be killed and started again."""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import subprocess
import time
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

import redis
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID
from endings import PATIENCE

MISSING = shutil.which("redis-server") is None


class RedisServer:
    """On a free port of loopback; it writes all down, so that its data outlive it.

    Parameters
    ----------
    certificate
        A file that has a key and its certificate, for a server that speaks TLS alone.
    """

    def __init__(self, folder: Path, certificate: Path | None = None) -> None:
        self.folder = folder
        self.certificate = certificate
        self.password = secrets.token_hex(16)
        self.port = free_port()
        self.process: subprocess.Popen[bytes] | None = None
        settings = {
            "bind": "127.0.0.1",
            "port": self.port,
            "requirepass": self.password,
            "appendonly": "yes",
            "appendfsync": "always",
            "save": '""',
            "dir": folder,
            "logfile": folder / "log",
        }
        if certificate is not None:
            settings |= {
                "port": 0,
                "tls-port": self.port,
                "tls-cert-file": certificate,
                "tls-key-file": certificate,
                "tls-ca-cert-file": certificate,
                "tls-auth-clients": "no",
            }
        (folder / "redis.conf").write_text("".join(f"{k} {v}\n" for k, v in settings.items()))

    @property
    def url(self) -> str:
        scheme = "redis" if self.certificate is None else "rediss"
        return f"{scheme}://:{self.password}@127.0.0.1:{self.port}/0"

    @property
    def env(self) -> dict[str, str]:
        """The environment of drivers and workers."""
        trusted = {} if self.certificate is None else {"SSL_CERT_FILE": str(self.certificate)}
        return {"HPCKIT_BROKER": self.url, **trusted}

    def client(self) -> redis.Redis:
        tls = {} if self.certificate is None else {"ssl": True, "ssl_ca_certs": self.certificate}
        return redis.Redis(host="127.0.0.1", port=self.port, password=self.password, **tls)

    def start(self) -> RedisServer:
        self.process = subprocess.Popen(
            ["redis-server", str(self.folder / "redis.conf")], cwd=self.folder
        )
        end = time.monotonic() + PATIENCE
        with self.client() as client:
            while True:
                try:
                    client.ping()
                    return self
                except redis.RedisError:
                    assert time.monotonic() < end, "redis-server does not start"
                    time.sleep(0.02)

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait(PATIENCE)
            self.process = None

    def forget(self) -> None:
        """Lose all data of a server that is not there."""
        shutil.rmtree(self.folder / "appendonlydir")


def make_certificate(folder: Path, address: str) -> Path:
    """Make a key and a certificate for an IP address, in one file."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "hpckit test")])
    now = datetime.now(UTC)
    names = x509.SubjectAlternativeName([x509.IPAddress(ip_address(address))])
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(names, critical=False)
        .sign(key, hashes.SHA256())
    )
    path = folder / f"{address}.pem"
    path.write_bytes(
        key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        + certificate.public_bytes(Encoding.PEM)
    )
    return path


def free_port() -> int:
    """Return a port of loopback that nobody listens on."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def held_bytes(folder: Path) -> bytes:
    """Return the bytes of all files in a folder, and their names."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    return b"".join(os.fsencode(path) + path.read_bytes() for path in files)
