"""hpckit worker: work for drivers that use the engine celery."""

from __future__ import annotations

import sys
from typing import NoReturn

import click

from hpckit.cli.broker import broker_option, required_broker
from hpckit.threads import limit_threads


@click.command(help="Work for drivers that have the engine celery, until Ctrl-C.")
@broker_option
@click.option("--workers", type=click.IntRange(1), help="Tasks at a time  [default: the cores]")
def command(broker: str | None, workers: int | None) -> NoReturn:
    """Start a worker on this node, which must see the file system of the run directories."""
    # Celery's threads must not bring a BLAS's threads with them.
    limit_threads(1)
    given = required_broker(broker)
    try:
        from hpckit.run.celery.worker import work
    except ModuleNotFoundError as error:
        from hpckit.errors import UsageError

        raise UsageError(
            f"hpckit worker needs the package {error.name}: pip install 'hpckit[celery]'"
        ) from None
    from hpckit.run.celery.broker import parse_broker
    from hpckit.store.provenance import usable_cores

    sys.exit(work(parse_broker(given), workers or usable_cores()))
