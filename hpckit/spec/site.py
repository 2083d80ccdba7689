"""The facts of one cluster: a TOML file, and the partition that a job gets there."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from hpckit.errors import SpecError, UsageError
from hpckit.spec.messages import listed, refused, shown
from hpckit.spec.resources import Count, Resources
from hpckit.spec.tomltext import parse_toml
from hpckit.units import Memory, Walltime

VARIABLE = "HPCKIT_SITE"
DEFAULT = "default"

Word = Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.:/@+-]*$")]
"""What stands in a directive or on a shell line as it is."""


class Partition(BaseModel):
    """One partition and its limits; None where there is none.

    Attributes
    ----------
    max_walltime
        Seconds.
    nodes, cpus_per_node, gpus_per_node
        How many there are, the largest node's.
    mem_per_node
        Bytes, the largest node's.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Word
    max_walltime: Walltime | None = None
    nodes: Count | None = None
    cpus_per_node: Count | None = None
    gpus_per_node: Annotated[int, Field(strict=True, ge=0)] = 0
    mem_per_node: Memory | None = None

    def obstacle(self, asked: Resources) -> str | None:
        """Return which limit the resources exceed, as a sentence; None if they fit."""
        return next((problem for problem in self._obstacles(asked)), None)

    def _obstacles(self, asked: Resources) -> Iterator[str]:
        each = asked.ntasks_per_node or (-(-asked.ntasks // asked.nodes) if asked.nodes else 1)
        cpus, gpus = each * asked.cpus_per_task, asked.gpus_of(each)
        mem = asked.mem if asked.mem is not None else (asked.mem_per_cpu or 0) * cpus
        if _above(asked.walltime, self.max_walltime):
            yield f"walltime={asked.walltime} is above its {self.max_walltime}"
        if _above(cpus, self.cpus_per_node):
            yield f"{cpus} CPUs on a node are more than its {self.cpus_per_node}"
        if gpus > self.gpus_per_node:
            yield f"{gpus} GPUs on a node are more than its {self.gpus_per_node}"
        if _above(mem, self.mem_per_node):
            yield f"{Memory(mem)} of memory on a node are more than its {self.mem_per_node}"
        nodes = asked.nodes or -(-asked.ntasks // self._room(asked))
        if _above(nodes, self.nodes):
            yield f"{nodes} nodes are more than its {self.nodes}"

    def _room(self, asked: Resources) -> int:
        """Return how many tasks a node takes, as far as its limits are known."""
        rooms = [asked.ntasks_per_node or asked.ntasks]
        if self.cpus_per_node is not None:
            rooms.append(self.cpus_per_node // asked.cpus_per_task)
        if asked.uses_gpus:
            rooms.append(
                self.gpus_per_node * (asked.ntasks_per_gpu or 1) // (asked.gpus_per_task or 1)
            )
        if asked.mem_per_cpu and self.mem_per_node is not None:
            rooms.append(self.mem_per_node // (asked.mem_per_cpu * asked.cpus_per_task))
        return max(min(rooms), 1)


def _above(asked: int | None, limit: int | None) -> bool:
    return asked is not None and limit is not None and asked > limit


class Site(BaseModel):
    """One cluster.

    Attributes
    ----------
    scheduler
        What queues its jobs.
    launcher
        What starts the ranks of an spmd job.
    mpi
        The flavour that srun is given as ``--mpi``.
    modules, prologue
        Names for ``module load``, and shell lines, at the beginning of each script.
    environment
        Variables that scripts export.
    interface
        Of this machine's networks, the one over which nodes reach what runs here.
    scratch
        A folder on each node's own disk, where commands work.
    image, binds
        The Apptainer image of jobs that name none, and what each image sees of the cluster's
        file systems beside a run's own folders, as ``apptainer --bind`` has it.
    max_array_size, max_submit_jobs
        Slurm's limits: an array's indices stay below the one, a user's jobs in the queue, each
        element counted, do not exceed the other.
    templates
        A folder whose Jinja files take the place of hpckit's.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Word
    account: Word | None = None
    qos: Word | None = None
    scheduler: Literal["slurm"] = "slurm"
    launcher: Literal["srun", "mpiexec", "none"] = "srun"
    mpi: Word | None = None
    modules: tuple[Word, ...] = ()
    prologue: tuple[str, ...] = ()
    environment: Mapping[str, str] = Field(default_factory=dict)
    interface: Word | None = None
    scratch: str | None = None
    image: Path | None = None
    binds: tuple[str, ...] = ()
    max_array_size: Count | None = None
    max_submit_jobs: Count | None = None
    templates: Path | None = None
    partitions: tuple[Partition, ...] = ()

    @field_validator("environment")
    @classmethod
    def _names_of_variables(cls, variables: Mapping[str, str]) -> Mapping[str, str]:
        for name in variables:
            if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
                raise ValueError(f"{shown(name)} cannot be the name of a variable")
        return variables

    @field_validator("prologue")
    @classmethod
    def _single_lines(cls, lines: tuple[str, ...]) -> tuple[str, ...]:
        for line in lines:
            if "\n" in line:
                raise ValueError(f"{shown(line)} is more than one line; give each by itself")
        return lines

    @classmethod
    def from_text(cls, text: str, source: Path) -> Self:
        """Read a site's TOML.

        Raises
        ------
        SpecError
            It is not TOML, has an unknown key, or a value that is not allowed.
        """
        try:
            table = {"name": source.stem, **parse_toml(text)}
            site = cls.model_validate(table)
        except ValidationError as error:
            keys = [*cls.model_fields, *(f"partitions.{k}" for k in Partition.model_fields)]
            problem = refused(error, keys, owner="a site")
            raise SpecError(problem.problem, key=problem.key, file=source) from None
        except SpecError as error:
            raise SpecError(error.problem, key=error.key, file=source, line=error.line) from None
        if site.image is not None:
            beside = source.parent / site.image.expanduser()
            site = site.model_copy(update={"image": beside})
        if site.templates is None:
            return site
        folder = source.parent / site.templates.expanduser()
        if not folder.is_dir():
            raise SpecError(f"{str(folder)!r} is no folder", key="templates", file=source)
        return site.model_copy(update={"templates": folder})

    def partition_for(self, asked: Resources, name: str | None = None) -> Partition | None:
        """Return the first partition that fits; None where the site names none.

        Parameters
        ----------
        name
            Of the only one that is wanted.

        Raises
        ------
        SpecError
            None fits, with the limit of each that stands against it; or none is called so.
        """
        obstacles = []
        if name is not None and not self.partitions:
            return Partition(name=name)
        wanted = [p for p in self.partitions if name in (None, p.name)]
        if self.partitions and not wanted:
            names = [p.name for p in self.partitions]
            raise SpecError(f"{name!r} is no partition of {self.name}; there are {listed(names)}")
        for partition in wanted:
            obstacle = partition.obstacle(asked)
            if obstacle is None:
                return partition
            obstacles.append(f"{partition.name}: {obstacle}")
        if obstacles:
            raise SpecError(f"no partition of {self.name} fits: {'; '.join(obstacles)}")
        return None


def site_folder() -> Path:
    """Return where a user's sites lie."""
    base = os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config"
    return Path(base) / "hpckit" / "sites"


def load_site(ref: str | None) -> Site:
    """Return the site that a file or a name means, $HPCKIT_SITE, or else the one called default.

    Without any there is a plain Slurm site, of which nothing is known.

    Raises
    ------
    UsageError
        There is no such file or name.
    SpecError
        It does not read.
    """
    ref = ref or os.environ.get(VARIABLE)
    named = site_folder() / f"{ref or DEFAULT}.toml"
    path = Path(ref) if ref and (Path(ref).suffix == ".toml" or "/" in ref) else named
    if path.is_file():
        return Site.from_text(_text(path), path)
    if ref is None:
        return Site(name="plain")
    there = sorted(known.stem for known in site_folder().glob("*.toml"))
    raise UsageError(
        f"--site {ref}: there is no {path}; sites are {listed(there) if there else 'not there yet'}"
        ": `hpckit site init` writes one on the cluster"
    )


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except OSError as error:
        raise UsageError(f"{path}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise SpecError("is not UTF-8 text; save it as UTF-8", file=path) from None
