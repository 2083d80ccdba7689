"""Dask's scheduler and workers without a port that other users of the machine could read."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from distributed import Scheduler, Worker
from distributed.node import RoutingApplication
from tornado.httpserver import HTTPServer
from tornado.netutil import bind_unix_socket


class PrivateScheduler(Scheduler):  # type: ignore[misc]
    """Its dashboard listens on a socket in the file system, which is its owner's alone."""

    def start_http_server(
        self, routes: Any, dashboard_address: str | None, *args: Any, **options: Any
    ) -> None:
        """Serve the dashboard at a path, or nothing anywhere."""
        _make_server(self, routes)
        if dashboard_address:
            self.http_server.add_socket(bind_unix_socket(dashboard_address, mode=0o600))


class PrivateWorker(Worker):  # type: ignore[misc]
    """Has no pages."""

    def start_http_server(self, routes: Any, *args: Any, **options: Any) -> None:
        """Serve nothing."""
        _make_server(self, routes)


@contextmanager
def dashboard_socket() -> Iterator[Path | None]:
    """Yield a path for the dashboard's socket, in a folder that is removed after; None without one.

    A socket's path has 107 bytes at most (unix(7)), which a run's folder may exceed.
    """
    if find_spec("bokeh") is None:
        yield None
        return
    with tempfile.TemporaryDirectory(prefix="hpckit-", dir=_short_folder()) as folder:
        yield Path(folder) / "dashboard"


def _short_folder() -> str | None:
    return None if len(tempfile.gettempdir()) < 80 else "/tmp"


def _make_server(node: Any, routes: Any) -> None:
    node.http_application = RoutingApplication(routes)
    node.http_server = HTTPServer(node.http_application)
    # Pages ask for it.
    node.http_server.port = 0
