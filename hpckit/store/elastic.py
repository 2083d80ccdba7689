"""A farm's workers in batch jobs of their own, as a manifest records them."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

from hpckit.spec.resources import Resources
from hpckit.spec.site import Site


class Elastic(BaseModel):
    """Between how many workers a farm has, in jobs of a site.

    Attributes
    ----------
    slots
        Workers in each job; None leaves it to hpckit.
    resources
        Of one task, in place of the job's own.
    partition, options
        The one that the user named, and further options of sbatch.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    site: Site
    least: int
    most: int
    slots: int | None = None
    resources: Resources | None = None
    partition: str | None = None
    options: dict[str, str] = {}
