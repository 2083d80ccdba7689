"""The option --broker, and the environment variable that is better than it."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, TypeVar

import click

from hpckit.errors import UsageError
from hpckit.variables import BROKER

F = TypeVar("F", bound=Callable[..., Any])

ENGINE = "celery"


def broker_option(function: F) -> F:
    """Add --broker: the URL of a Redis server."""
    return click.option(
        "--broker",
        metavar="URL",
        help=f"Of the engine celery; others see what is given here  [default: ${BROKER}]",
    )(function)


def required_broker(given: str | None) -> str:
    """Return the URL of the broker.

    Raises
    ------
    UsageError
        There is none, or it is not one.
    """
    from hpckit.run.celery.broker import FORM, parse_broker

    url = given or os.environ.get(BROKER)
    if not url:
        raise UsageError(f"the engine {ENGINE} needs a broker: set {BROKER}={FORM}, or --broker")
    parse_broker(url)
    return url


def broker_of(engine: str | None, given: str | None) -> str | None:
    """Return the URL of the broker that an engine needs.

    Raises
    ------
    UsageError
        The engine needs none, and one was given; or it needs one, and there is none.
    """
    if engine == ENGINE:
        return required_broker(given)
    if given is not None:
        raise UsageError(f"--broker is for the engine {ENGINE}: leave it, or add --engine {ENGINE}")
    return None
