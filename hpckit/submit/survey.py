"""What a Slurm cluster says of itself, as a site."""

from __future__ import annotations

import os
import pwd
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from hpckit.errors import LaunchError
from hpckit.spec.site import Partition, Site
from hpckit.submit.client import ask
from hpckit.units import Memory, Walltime

MIB = 1 << 20
FLAVOURS = ("pmix", "pmi2")
"""Of srun's ``--mpi``, the first that is there is taken."""


@dataclass(frozen=True)
class NodeLine:
    """One node in one partition, as sinfo(1) prints it."""

    partition: str
    is_default: bool
    walltime: str
    node: str
    cpus: int
    mebibytes: int
    gpus: int


def survey(name: str) -> Site:
    """Return the site that this machine belongs to.

    Raises
    ------
    UsageError
        There is no Slurm here.
    LaunchError
        Slurm does not answer.
    """
    text = ask(["sinfo", "--noheader", "--Node", "--format=%P|%l|%N|%c|%m|%G"])
    lines = [node_line(line) for line in text.splitlines() if line.strip()]
    flavours = ask(["srun", "--mpi=list"])
    mpi = next((f for f in FLAVOURS if re.search(rf"\b{f}\b", flavours)), None)
    return Site(
        name=name,
        mpi=mpi,
        max_array_size=max_array_size(ask(["scontrol", "show", "config"])),
        max_submit_jobs=_max_submit_jobs(),
        partitions=tuple(partitions(lines)),
    )


def max_array_size(config: str) -> int | None:
    """Read the number that an array's indices stay below out of ``scontrol show config``."""
    match = re.search(r"^MaxArraySize\s*=\s*(\d+)", config, re.MULTILINE)
    return int(match[1]) if match else None


def _max_submit_jobs() -> int | None:
    """Ask the accounting how many jobs the user may have in the queue; None if it sets no limit."""
    argv = ["sacctmgr", "-n", "-P", "show", "assoc", f"user={pwd.getpwuid(os.geteuid()).pw_name}"]
    try:
        text = ask([*argv, "format=MaxSubmitJobs"])
    except LaunchError:
        return None
    limits = [int(line) for line in text.splitlines() if line.strip().isdigit()]
    return min(limits, default=None)


def node_line(line: str) -> NodeLine:
    """Read a line of ``sinfo --Node --format=%P|%l|%N|%c|%m|%G``.

    Raises
    ------
    LaunchError
        It is not of that form.
    """
    try:
        partition, walltime, node, cpus, memory, gres = line.strip().split("|")
        return NodeLine(
            partition=partition.rstrip("*"),
            is_default=partition.endswith("*"),
            walltime=walltime,
            node=node,
            cpus=int(cpus),
            mebibytes=int(memory),
            gpus=_gpus(gres),
        )
    except ValueError:
        raise LaunchError(f"sinfo printed {line!r}, which is not understood") from None


def partitions(lines: Iterable[NodeLine]) -> list[Partition]:
    """Return the partitions that some nodes are in, the default one first."""
    groups: dict[str, list[NodeLine]] = {}
    for line in lines:
        groups.setdefault(line.partition, []).append(line)
    ordered = sorted(groups.values(), key=lambda group: not group[0].is_default)
    return [_partition(group) for group in ordered]


def _partition(group: Sequence[NodeLine]) -> Partition:
    limit = group[0].walltime
    return Partition(
        name=group[0].partition,
        max_walltime=None if limit in ("infinite", "n/a") else Walltime(limit),
        nodes=len({line.node for line in group}),
        cpus_per_node=max(line.cpus for line in group),
        gpus_per_node=max(line.gpus for line in group),
        mem_per_node=Memory(max(line.mebibytes for line in group) * MIB),
    )


def _gpus(gres: str) -> int:
    """Count the GPUs in a list such as ``gpu:a100:4(S:0-1),gpu:v100:2,shard:8``."""
    found = re.findall(r"(?:^|,)gpu(?::[^:,(]+)?:(\d+)", gres)
    return sum(map(int, found))
