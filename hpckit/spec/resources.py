"""What a job asks the scheduler for, in Slurm's own words."""

from __future__ import annotations

from typing import Annotated, Any, Self

from pydantic import Field, model_validator

from hpckit.errors import SpecError
from hpckit.spec.options import Options
from hpckit.units import Memory, Walltime

Count = Annotated[int, Field(strict=True, ge=1)]


class Resources(Options):
    """The resources of one run; the meaning of each is that of the same option of sbatch(1).

    Attributes
    ----------
    nodes, ntasks, ntasks_per_node, cpus_per_task, gpus_per_task
        Counts; None leaves it to the scheduler.
    ntasks_per_gpu
        How many tasks share one GPU, instead of `gpus_per_task`.
    mem, mem_per_cpu
        Bytes a node, or bytes a CPU; one of the two at most.
    walltime
        Seconds.
    """

    nodes: Count | None = None
    ntasks: Count = 1
    ntasks_per_node: Count | None = None
    cpus_per_task: Count = 1
    gpus_per_task: Annotated[int, Field(strict=True, ge=0)] = 0
    ntasks_per_gpu: Count | None = None
    mem: Memory | None = None
    mem_per_cpu: Memory | None = None
    walltime: Walltime | None = None

    def updated(self, **changes: Any) -> Self:
        """Return these resources with some changed, all of them validated again.

        Raises
        ------
        SpecError
            As `from_options` does.
        """
        present = {name: getattr(self, name) for name in self.model_fields_set}
        return self.from_options(present | changes, owner="a job's resources")

    @property
    def uses_gpus(self) -> bool:
        """Whether a task has a GPU, of its own or together with others."""
        return self.gpus_per_task > 0 or self.ntasks_per_gpu is not None

    def gpus_of(self, tasks: int) -> int:
        """Return how many GPUs some tasks have on one node."""
        return (
            -(-tasks // self.ntasks_per_gpu) if self.ntasks_per_gpu else tasks * self.gpus_per_task
        )

    def require_one_task(self) -> None:
        """See that they are those of a farm, each task of which is one process.

        Raises
        ------
        SpecError
            They are for several processes.
        """
        if self.ntasks != 1 or (self.ntasks_per_node or 1) != 1:
            raise SpecError(
                f"{self.ntasks} is not allowed; a task of a farm is one process, so leave out"
                " ntasks, ntasks_per_node and nodes: hpckit run --workers N does N tasks at once",
                key="ntasks",
            )

    @model_validator(mode="before")
    @classmethod
    def _one_task_a_place(cls, options: Any) -> Any:
        """Without ntasks, sbatch fills the nodes: one task each, or ntasks_per_node."""
        if not isinstance(options, dict) or "ntasks" in options:
            return options
        nodes, each = options.get("nodes"), options.get("ntasks_per_node") or 1
        if type(nodes) is not int or type(each) is not int or nodes < 1 or each < 1:
            return options
        return options | {"ntasks": nodes * each}

    @model_validator(mode="after")
    def _agree(self) -> Self:
        if self.mem is not None and self.mem_per_cpu is not None:
            raise ValueError("mem and mem_per_cpu exclude each other; leave one of them out")
        if self.gpus_per_task and self.ntasks_per_gpu:
            raise ValueError(
                "gpus_per_task and ntasks_per_gpu exclude each other; leave one of them out"
            )
        if self.nodes is not None and self.nodes > self.ntasks:
            raise ValueError(
                f"nodes={self.nodes} is more than ntasks={self.ntasks}, and a node without a task"
                f" would idle; nodes is at most ntasks"
            )
        if self.nodes is not None and self.ntasks_per_node is not None:
            places = self.nodes * self.ntasks_per_node
            if places < self.ntasks:
                raise ValueError(
                    f"nodes={self.nodes} with ntasks_per_node={self.ntasks_per_node} has room for"
                    f" {places} tasks, fewer than ntasks={self.ntasks}"
                )
        return self
