"""What a job's tasks want of cards."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from hpckit.errors import LaunchError

if TYPE_CHECKING:
    from hpckit.spec.resources import Resources
    from hpckit.store.rundir import RunDir


@dataclass(frozen=True)
class Wish:
    """Cards for the tasks of one run.

    Attributes
    ----------
    count
        Cards a task.
    sharing
        How many tasks may work on one card at a time.
    folder
        Of the job file: where its kernels are.
    uses
        Where accounts of the cards' use go.
    """

    count: int
    sharing: int
    folder: Path
    uses: Path

    @classmethod
    def of(cls, resources: Resources, job: Path, run: RunDir) -> Wish:
        """Return what tasks with some resources want.

        Parameters
        ----------
        job
            The file that the user has written.
        """
        if not resources.uses_gpus:
            return NONE
        sharing = resources.ntasks_per_gpu
        count = resources.gpus_per_task if sharing is None else 1
        return cls(count, sharing or 1, job.parent, run.gpus)


NONE = Wish(0, 1, Path(), Path())
"""No card at all."""


def require(wish: Wish) -> Wish:
    """Return what is wanted, which must be one card.

    Raises
    ------
    LaunchError
        The job asks for none, or for several a task.
    """
    if wish.count == 0:
        raise LaunchError(
            "the job asks for no GPU: gpus_per_task=1 in its options, or --gpus-per-task 1"
        )
    if wish.count > 1:
        raise LaunchError(
            f"gpus_per_task={wish.count}: task.gpu and run.gpu are one card; take more tasks, "
            "each with one, or leave the cards to the program"
        )
    return wish
