"""Batch scripts for Slurm: short, commented, and run by plain ``sbatch``.

Every value passes one of two filters: ``sh`` for shell lines, ``directive`` for ``#SBATCH`` lines,
which the shell does not read and in which Slurm expands no variables.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any

from hpckit.errors import SpecError, UsageError
from hpckit.spec.messages import one_line, shown
from hpckit.spec.resources import Resources
from hpckit.spec.site import Partition, Site

_PLAIN = re.compile(r"[A-Za-z0-9_.:/@%+=,-]+")


@dataclass(frozen=True)
class Script:
    """What a script is rendered from.

    Attributes
    ----------
    template
        Its file's name.
    title
        One line on what it does.
    directives
        Options of sbatch(1) without their dashes; None is the value of one that takes none.
    variables
        What it exports.
    launch
        The words of its one command.
    workers
        Tasks at a time, for a farm.
    kept
        Patterns of the variables that go into an image; all go to a program outside of any.
    exits
        The folder for exit statuses, of a script that is submitted for a run.
    id
        The name of its file there, which the shell expands.
    signal, time_is_up, max_restarts
        What warns it, the exit status of a program that heeded it, and how often it goes on.
    """

    template: str
    title: str
    directives: Mapping[str, object | None]
    launch: Sequence[str]
    variables: Mapping[str, str] = field(default_factory=dict)
    workers: int | None = None
    kept: Sequence[str] = ()
    exits: Path | None = None
    id: str | None = None
    signal: str | None = None
    time_is_up: int | None = None
    max_restarts: int | None = None


def render(script: Script, site: Site, version: str) -> str:
    """Return the text of a script.

    Raises
    ------
    SpecError
        A template of the site does not render, or a value cannot stand in a directive.
    """
    from jinja2 import Environment, StrictUndefined

    environment = Environment(
        loader=_loader(site.templates),
        undefined=StrictUndefined,
        keep_trailing_newline=True,
        trim_blocks=True,
        lstrip_blocks=True,
        autoescape=False,
    )
    environment.filters |= {"sh": shell_word, "directive": directive_value}
    try:
        template = environment.get_template(script.template)
        return template.render(vars(script) | {"site": site, "version": version})
    except SpecError:
        raise
    except Exception as error:  # A template is code, and may fail in any way.
        told = one_line(error)
        raise SpecError(f"the template {script.template} does not render: {told}") from None


def directives(
    name: str, asked: Resources, site: Site, partition: Partition | None, output: str
) -> dict[str, object]:
    """Return the options of sbatch(1) that ask for some resources.

    Parameters
    ----------
    name
        The job's name.
    output
        Where the script's own output goes; Slurm's ``%j`` in it stands for the job id.
    """
    found = {
        "job-name": name,
        "partition": partition.name if partition else None,
        "account": site.account,
        "qos": site.qos,
        "nodes": asked.nodes,
        "ntasks": asked.ntasks,
        "ntasks-per-node": asked.ntasks_per_node,
        "cpus-per-task": asked.cpus_per_task,
        **_gpus(asked, site),
        "mem": asked.mem,
        "mem-per-cpu": asked.mem_per_cpu,
        "time": asked.walltime,
        "output": output,
    }
    return {option: value for option, value in found.items() if value is not None}


def _gpus(asked: Resources, site: Site) -> dict[str, object]:
    """Return the options that ask for GPUs.

    mpiexec has one daemon a node, to which Slurm would show the GPUs of a single task; and sbatch
    refuses --ntasks-per-gpu together with --ntasks-per-node.
    """
    by_node = site.launcher == "mpiexec" and asked.nodes is not None
    if asked.uses_gpus and (by_node or (asked.ntasks_per_gpu and asked.ntasks_per_node)):
        nodes = asked.nodes or 1
        each = asked.ntasks_per_node or -(-asked.ntasks // nodes)
        return {"ntasks-per-node": each, "gpus-per-node": asked.gpus_of(each)}
    return {"gpus-per-task": asked.gpus_per_task or None, "ntasks-per-gpu": asked.ntasks_per_gpu}


def with_options(
    own: Mapping[str, object | None], options: Mapping[str, str]
) -> dict[str, object | None]:
    """Return directives with further options of sbatch that the user gives; empty ones take none.

    Raises
    ------
    SpecError
        One is there already.
    """
    for name in options:
        if name in own:
            raise SpecError(
                f"the script says it already, {name}={own[name]}: change the job's own, or give "
                "--walltime, --mem or --partition",
                key="--sbatch",
            )
    return {**own, **{name: value or None for name, value in options.items()}}


def log_pattern(path: Path) -> str:
    """Return the name of a log for ``--output``, in which Slurm replaces ``%j`` and the like."""
    if "\\" in str(path):
        raise UsageError(
            f"{path.parent}: a backslash in it turns off the numbers in Slurm's logs: "
            "give another --output"
        )
    folder = str(path.parent).replace("%", "%%")
    return f"{folder}/{path.name}"


def rank_launch(site: Site, asked: Resources, program: Sequence[str]) -> list[str]:
    """Return the words that start the ranks of a program as the site starts them.

    srun has not handed ``--cpus-per-task`` on to its steps since Slurm 22.05, so it is said again.
    """
    if site.launcher == "none":
        if asked.ntasks > 1:
            raise SpecError(
                f"{asked.ntasks} ranks, and the site {site.name} has no launcher to start them; "
                "srun and mpiexec are allowed",
                key="launcher",
            )
        return list(program)
    if site.launcher == "mpiexec":
        return ["mpiexec", "-n", str(asked.ntasks), *program]
    flavour = [f"--mpi={site.mpi}"] if site.mpi else []
    return ["srun", *flavour, f"--cpus-per-task={asked.cpus_per_task}", *program]


def shell_word(value: object) -> str:
    """Quote a value so that the shell reads it as one word, with nothing of it expanded."""
    text = str(value)
    if "\0" in text:
        raise SpecError(f"{shown(text)} holds a NUL, which no command line can")
    if _PLAIN.fullmatch(text):
        return text
    return '"' + re.sub(r'(["\\$`])', r"\\\1", text) + '"'


def directive_value(value: object) -> str:
    """Quote a value so that sbatch reads it back from a directive.

    Its parser knows quotes, and takes the character after a backslash as it is.
    """
    text = str(value)
    if _PLAIN.fullmatch(text):
        return text
    if not text.isprintable():
        raise SpecError(f"{shown(text)} cannot stand in a #SBATCH line, which has printable text")
    return '"' + re.sub(r'(["\\])', r"\\\1", text) + '"'


def _loader(folder: Path | None) -> Any:
    from jinja2 import ChoiceLoader, FileSystemLoader, PrefixLoader

    own = FileSystemLoader(str(files("hpckit.slurm_templates")))
    # `{% extends "hpckit/base.sh" %}` names hpckit's own from a file of the same name.
    loaders = [own, PrefixLoader({"hpckit": own})]
    return ChoiceLoader([FileSystemLoader(str(folder)), *loaders] if folder else loaders)
