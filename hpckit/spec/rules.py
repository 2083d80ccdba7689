"""What is to happen when single tasks of a farm fail."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Self

from pydantic import Field

from hpckit.errors import SpecError
from hpckit.spec.options import Options
from hpckit.units import Walltime


class TaskRules(Options):
    """What a job says about tasks that fail or hang.

    Attributes
    ----------
    task_retries
        How often a task that fails is tried again, after a while that doubles each time.
    task_timeout
        How long an attempt may take.
    max_failures
        After so many failed tasks a session begins no others.
    """

    task_retries: Annotated[int, Field(strict=True, ge=0)] = 0
    task_timeout: Walltime | None = None
    max_failures: Annotated[int, Field(strict=True, ge=1)] | None = None

    def updated(self, changes: Mapping[str, Any]) -> Self:
        """Return these rules with those of the command line in place of the job's own.

        Parameters
        ----------
        changes
            By name; what is None stays as it is.

        Raises
        ------
        SpecError
            A value is not allowed.
        """
        given = {name: value for name, value in changes.items() if value is not None}
        present = {name: getattr(self, name) for name in self.model_fields_set}
        try:
            return self.from_options(present | given, owner="a job's rules")
        except SpecError as error:
            option = f"--{error.key.replace('_', '-')}" if error.key else None
            raise SpecError(error.problem, key=option) from None
