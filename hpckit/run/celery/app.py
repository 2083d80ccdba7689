"""What a driver and its workers agree on about Celery.

Calls go through a Celery queue; replies go straight into a Redis list of the driver, which waits
for them without a result backend in between. Celery carries text alone: `hpckit.run.celery.wire`.
"""

from __future__ import annotations

from typing import Any

from celery import Celery
from kombu.connection import Connection
from kombu.entity import Queue

from hpckit.run.celery import broker
from hpckit.run.celery.broker import Broker

TASK = "hpckit.batch"

LOADER = "celery.loaders.app:AppLoader"
"""Reads no configuration file, whatever CELERY_LOADER says."""

_CENTURY = 100 * 365 * 86400
_QUEUE, _INDEX, _LOCK = broker.UNACKED

TLS = {"ssl_cert_reqs": "required", "ssl_check_hostname": True}
"""As `Broker.connect` has it."""

SETTINGS = {
    "accept_content": ["json"],
    "task_serializer": "json",
    "result_serializer": "json",
    "result_accept_content": ["json"],
    "task_ignore_result": True,
    "task_acks_late": True,
    # A worker takes no more calls than it can begin: a long one would hold the next up.
    "worker_prefetch_multiplier": 1,
    "worker_enable_remote_control": False,
    "worker_send_task_events": False,
    "worker_hijack_root_logger": False,
    "worker_redirect_stdouts": False,
    "broker_connection_max_retries": None,
    "broker_connection_retry": True,
    "broker_connection_retry_on_startup": True,
    "broker_transport_options": {
        # The driver sees what is lost, and soon; Celery would begin a task of hours twice.
        "visibility_timeout": _CENTURY,
        "unacked_key": _QUEUE,
        "unacked_index_key": _INDEX,
        "unacked_mutex_key": _LOCK,
        "socket_connect_timeout": broker.CONNECT_SECONDS,
        "socket_timeout": broker.ANSWER_SECONDS,
        "socket_keepalive": True,
    },
}


class BatchApp(Celery):  # type: ignore[misc]
    """A Celery application that speaks to one broker, whatever CELERY_BROKER_URL says."""

    def __init__(self, where: Broker) -> None:
        super().__init__(
            "hpckit", loader=LOADER, backend="disabled://", fixups=set(), set_as_current=False
        )
        self._url = where.url
        self.conf.update(SETTINGS, task_queues=[queue()])
        if where.tls:
            self.conf.update(broker_use_ssl=TLS)

    def connection_for_read(self, url: Any = None, **options: Any) -> Connection:
        """Return a connection of the worker."""
        found: Connection = super().connection_for_read(url or self._url, **options)
        return found

    def connection_for_write(self, url: Any = None, **options: Any) -> Connection:
        """Return a connection of the driver."""
        found: Connection = super().connection_for_write(url or self._url, **options)
        return found


def queue() -> Queue:
    """Return the queue of this user and this version of hpckit."""
    make: Any = Queue
    found: Queue = make(broker.QUEUE, exchange=broker.QUEUE, routing_key=broker.QUEUE)
    return found
