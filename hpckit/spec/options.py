"""Options that a user gives by name: unknown ones are errors, and so is what is not allowed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, ValidationError

from hpckit.spec.messages import refused


class Options(BaseModel):
    """Options of one kind; a subclass has a field for each."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    @classmethod
    def from_options(cls, options: Mapping[str, Any], *, owner: str = "the job") -> Self:
        """Validate options as a user gave them.

        Parameters
        ----------
        owner
            Where the user wrote them, for the messages.

        Raises
        ------
        SpecError
            For an unknown option, a value that is not allowed, or two that contradict each other.
        """
        try:
            return cls.model_validate(dict(options))
        except ValidationError as error:
            raise refused(error, cls.model_fields, owner=owner) from None
