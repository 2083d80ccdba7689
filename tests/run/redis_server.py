"""A Redis server of a test's own, with a password, which can be killed and started again."""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import subprocess
import time
from pathlib import Path

import redis
from endings import PATIENCE

MISSING = shutil.which("redis-server") is None


class RedisServer:
    """On a free port of loopback; it writes all down, so that its data outlive it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
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
        (folder / "redis.conf").write_text("".join(f"{k} {v}\n" for k, v in settings.items()))

    @property
    def url(self) -> str:
        return f"redis://:{self.password}@127.0.0.1:{self.port}/0"

    @property
    def env(self) -> dict[str, str]:
        """The environment of drivers and workers."""
        return {"HPCKIT_BROKER": self.url}

    def client(self) -> redis.Redis:
        return redis.Redis(port=self.port, password=self.password)

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


def free_port() -> int:
    """Return a port of loopback that nobody listens on."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def held_bytes(folder: Path) -> bytes:
    """Return the bytes of all files in a folder, and their names."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    return b"".join(os.fsencode(path) + path.read_bytes() for path in files)
