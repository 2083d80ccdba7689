"""The Redis server through which a driver and its Celery workers speak, and its keys."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import TYPE_CHECKING
from urllib.parse import quote, unquote, urlsplit

from hpckit import __version__
from hpckit.errors import LaunchError, UsageError
from hpckit.variables import BROKER

if TYPE_CHECKING:
    import redis

FORM = "redis://:PASSWORD@HOST:PORT/0"
SCHEMES = ("redis", "rediss")
"""Plain, and by TLS."""

CONNECT_SECONDS = 5.0
ANSWER_SECONDS = 20.0
"""What the server gets to answer; longer than any command here waits on purpose."""

FORMAT = 1
"""Of messages; goes up when an earlier hpckit could not read them."""

PREFIX = f"hpckit-{__version__}-{FORMAT}-{os.getuid()}"
"""Of all keys: workers of another version, or of another user, have others."""

QUEUE = f"{PREFIX}:calls"
WORKERS = f"{PREFIX}:workers"
"""The set of the workers' names."""

UNACKED = (f"{PREFIX}:unacked", f"{PREFIX}:unacked-index", f"{PREFIX}:unacked-lock")
"""What Celery keeps of calls that are at a worker."""


def beat_key(worker: str) -> str:
    """Return the key under which a worker says that it lives, and what it is at."""
    return f"{PREFIX}:worker:{worker}"


def orders_key(worker: str) -> str:
    """Return the list of the calls that a worker is to end."""
    return f"{PREFIX}:orders:{worker}"


def open_key(session: str) -> str:
    """Return the hash of the calls of a driver that nobody has begun.

    It is there as long as the driver lives: whoever begins a call takes it out, so that no copy
    of it is begun again, nor one of a driver that is gone.
    """
    return f"{PREFIX}:open:{session}"


def replies_key(session: str) -> str:
    """Return the list of what workers say to a driver."""
    return f"{PREFIX}:replies:{session}"


@dataclass(frozen=True)
class Broker:
    """Where the server is, and how to get in.

    Attributes
    ----------
    tls
        Whether it is spoken to by TLS: it must show a certificate for its name of an authority
        that this machine trusts, or that $SSL_CERT_FILE names.
    """

    host: str
    port: int
    database: int = 0
    user: str | None = None
    password: str | None = field(default=None, repr=False)
    tls: bool = False

    def __str__(self) -> str:
        """Return the place alone, for messages."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"

    @property
    def url(self) -> str:
        """The URL with the password, for Celery alone."""
        words = [quote(word or "", safe="") for word in (self.user, self.password)]
        credentials = ":".join(words) + "@" if self.password else ""
        return f"redis{'s' if self.tls else ''}://{credentials}{self}/{self.database}"

    def connect(self) -> redis.Redis:
        """Return a client, which connects when it is used; it tries each command once."""
        import redis
        from redis.backoff import NoBackoff
        from redis.retry import Retry

        return redis.Redis(
            host=self.host,
            port=self.port,
            db=self.database,
            username=self.user,
            password=self.password,
            ssl=self.tls,
            ssl_cert_reqs="required",
            ssl_check_hostname=True,
            socket_connect_timeout=CONNECT_SECONDS,
            socket_timeout=ANSWER_SECONDS,
            socket_keepalive=True,
            retry=Retry(NoBackoff(), 0),
        )

    def reach(self) -> redis.Redis:
        """Return a client that has reached the server.

        Raises
        ------
        LaunchError
            It does not answer, or refuses the password.
        """
        from redis import RedisError

        client = self.connect()
        try:
            client.ping()
        except (RedisError, OSError) as error:
            raise LaunchError(self.told(error)) from None
        return client

    def told(self, error: Exception) -> str:
        """Say what went wrong with the server, without the password."""
        from redis.exceptions import AuthenticationError, AuthorizationError

        if isinstance(error, AuthenticationError | AuthorizationError):
            given = "the password" if self.password else "a client without a password"
            return f"the broker at {self} refuses {given}: correct {BROKER}={FORM}"
        why = str(error)
        for secret in {self.password, quote(self.password or "", safe="")} - {None, ""}:
            why = why.replace(str(secret), "***")
        return (
            f"no use of the broker at {self} ({why.rstrip('.')}): start redis-server there, or "
            f"correct {BROKER}"
        )


def parse_broker(url: str) -> Broker:
    """Read the URL of a broker.

    Raises
    ------
    UsageError
        It is none, or would let anyone on the network in. The message does not show it: it may
        hold a password.
    """
    try:
        parts = urlsplit(url.strip())
        host, port = parts.hostname, parts.port or 6379
        database = int(parts.path.strip("/") or 0)
    except ValueError:
        host = None
    if host is None or parts.scheme not in SCHEMES or parts.query or parts.fragment or database < 0:
        raise UsageError(
            f"the broker's URL is not of the form {FORM} (it is not shown, since it may hold a "
            "password; in that, write / @ : % as %2F %40 %3A %25)"
        )
    password = unquote(parts.password or "") or None
    if password is None and not _is_loopback(host):
        raise UsageError(
            f"a broker without a password at {host}: whoever reaches it could start tasks as "
            f"you: give it one (requirepass) and write {FORM}"
        )
    user = unquote(parts.username or "") or None
    return Broker(host, port, database, user, password, parts.scheme == "rediss")


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
