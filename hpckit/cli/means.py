"""What executes a run in the foreground, as the user chose it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any

import click

from hpckit.cli.broker import broker_of, broker_option
from hpckit.cli.options import F
from hpckit.errors import UsageError
from hpckit.spec.rules import TaskRules

if TYPE_CHECKING:
    from hpckit.run.engines import Engine
    from hpckit.spec.job import Job
    from hpckit.store.elastic import Elastic
    from hpckit.store.manifest import Manifest


@dataclass(frozen=True)
class Means:
    """What executes a run; what is None is left to hpckit, or stays as it was before."""

    engine: str | None = None
    workers: int | None = None
    ranks: int | None = None
    address: str | None = None
    broker: str | None = None
    min_workers: int | None = None
    max_workers: int | None = None
    on_site: str | None = None

    @classmethod
    def taken_from(cls, options: dict[str, Any]) -> Means:
        """Take them out of a command's options."""
        return cls(**{f.name: options.pop(f.name) for f in fields(cls) if f.name in options})

    def or_as_in(self, before: Manifest) -> Means:
        """Fill them up with what a session of a run had."""
        engine = self.engine or before.engine
        is_same = engine == before.engine and before.elastic is None
        return Means(
            engine=engine,
            workers=self.workers or (before.workers if is_same else None),
            ranks=self.ranks or before.ranks,
            address=self.address,
            broker=self.broker,
            min_workers=self.min_workers,
            max_workers=self.max_workers,
            on_site=self.on_site,
        )

    def elastic(self, before: Elastic | None = None) -> Elastic | None:
        """Return how workers come and go in batch jobs, if they do.

        Parameters
        ----------
        before
            How they did in an earlier session.

        Raises
        ------
        UsageError
            The options contradict each other, or there is no such site.
        """
        from hpckit.cli.elastic import elastic_again, elastic_of

        asked = (self.min_workers, self.max_workers, self.workers)
        if before is None or self.on_site is not None or self.address is not None:
            return elastic_of(self.on_site, *asked)
        return elastic_again(before, *asked)

    def engine_of(self, job: Job) -> str:
        """Return the engine that is meant for a job."""
        from hpckit.run.engines import default_engine

        return self.engine or default_engine(job)

    def where(self, job: Job) -> str | None:
        """Return the address of the scheduler or broker of the engine.

        Raises
        ------
        UsageError
            It needs one, and there is none; or it needs none.
        """
        return broker_of(self.engine_of(job), self.broker) or self.address

    def require_fitting(self, job: Job, rules: TaskRules = TaskRules()) -> None:  # noqa: B008
        """Refuse what a job of this shape, or a launcher's copy of hpckit, cannot honour.

        Raises
        ------
        UsageError
            One of them was given.
        """
        refuse_copies(job.kind)
        if job.kind == "spmd":
            self._require_ranks_alone()
        elif self.ranks is not None:
            raise UsageError("--ranks is for spmd jobs: a farm takes --workers N")
        else:
            self._require_fitting_engine(job, rules)

    def _require_ranks_alone(self) -> None:
        for name, value in asdict(self).items():
            if value is not None and name != "ranks":
                option = "site" if name == "on_site" else name.replace("_", "-")
                raise UsageError(f"--{option} is for farms: an spmd job takes --ranks N")

    def _require_fitting_engine(self, job: Job, rules: TaskRules) -> None:
        from hpckit.run.engines import engine_class

        name = self.engine_of(job)
        engine = engine_class(name)
        if name == "serial" and (self.workers or 1) > 1:
            raise UsageError(
                f"--workers {self.workers}: the engine serial has one; take threads, processes"
            )
        if self.address is not None and name != "dask" and not engine.has_address:
            raise UsageError(
                f"--address {self.address}: the engine {name} has its workers here; "
                "take --engine dask"
            )
        if self.elastic() is not None:
            if not engine.has_pilots:
                raise UsageError(
                    f"--site, --min-workers and --max-workers: the engine {name} has no workers "
                    "in batch jobs of their own; take --engine dask"
                )
            if self.address is not None:
                raise UsageError("--address and --site exclude each other: whose workers?")
        _require_callable(job, name, engine)
        if rules.task_timeout is not None and not engine.can_end_tasks(job):
            raise UsageError(
                f"--task-timeout: the engine {name} cannot end a task, which it works in "
                "hpckit's own process; take --engine processes"
            )


def means_options(function: F) -> F:
    """Add the options of `Means`, but for --ranks."""
    from hpckit.run.engines import ASYNC_DEFAULT, DEFAULT

    options: list[Callable[[Any], Any]] = [
        click.option(
            "--engine",
            metavar="NAME",
            help=f"What executes a farm's tasks: see docs/engines.md  [default: {DEFAULT}, or for "
            f"async functions {ASYNC_DEFAULT}]",
        ),
        click.option("--workers", type=click.IntRange(1), help="Tasks at a time."),
        click.option(
            "--address",
            metavar="URL",
            help="Of a scheduler of the engine dask, such as tcp://HOST:8786.",
        ),
        broker_option,
        click.option(
            "--min-workers",
            type=click.IntRange(0),
            help="Of the engine dask, in batch jobs of their own: tasks at a time, at least.",
        ),
        click.option(
            "--max-workers", type=click.IntRange(1), help="The same, at most  [default: 100]"
        ),
    ]
    for option in reversed(options):
        function = option(function)
    return function


def refuse_copies(kind: str) -> None:
    """Refuse to be one of several copies that a launcher started: each would do the whole job.

    Raises
    ------
    UsageError
        There are several.
    """
    from hpckit.run.ranks import launched_ranks

    copies = launched_ranks() or 1
    if copies > 1:
        remedy = "mpirun -n N hpckit exec JOB" if kind == "spmd" else "hpckit run JOB, once"
        raise UsageError(
            f"a launcher started {copies} copies of this command, and each would do the whole "
            f"job: start it as {remedy}"
        )


def refuse_rules(job: Job, rules: dict[str, Any]) -> None:
    """Refuse rules for tasks that the command line gives to a job without tasks.

    Raises
    ------
    UsageError
        One was given.
    """
    for name, value in rules.items():
        if job.kind == "spmd" and value is not None:
            raise UsageError(f"--{name.replace('_', '-')} is for farms: an spmd job has no tasks")


def _require_callable(job: Job, name: str, engine: type[Engine]) -> None:
    if job.is_async and not engine.takes_async:
        raise UsageError(
            f"{job.name} is an async def, whose tasks wait together on one event loop: the engine "
            f"{name} has none; take --engine asyncio"
        )
