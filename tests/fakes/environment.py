"""What the script of an element finds in its environment."""

from __future__ import annotations

import pwd
from collections.abc import Mapping

from fakes import hosts
from fakes.folder import Folder
from fakes.jobs import Element

KEPT = ("HOME", "LOGNAME", "MAIL", "PATH", "SHELL", "USER")
"""What a login sets; all that `--export=NONE` leaves."""
OWN = ("FAKE_SLURM",)
"""Where the fake is found; it takes the place of $SLURM_CONF."""

COUNTS = {
    "ntasks": ("SLURM_NTASKS", "SLURM_NPROCS"),
    "cpus-per-task": ("SLURM_CPUS_PER_TASK",),
    "ntasks-per-node": ("SLURM_NTASKS_PER_NODE",),
    "mem": ("SLURM_MEM_PER_NODE",),
    "mem-per-cpu": ("SLURM_MEM_PER_CPU",),
}
"""Variables that are there if the option was given."""


def of(folder: Folder, element: Element, submitted: Mapping[str, str]) -> dict[str, str]:
    """Return all variables, given those at submission."""
    options = element.job.data["options"]
    chosen = _exported(options.get("export", "ALL"), submitted)
    own = {name: value for name, value in submitted.items() if name.startswith(OWN)}
    return {**chosen, **own, **_slurm(folder, element), **_array(element), "ENVIRONMENT": "BATCH"}


def _exported(names: str, submitted: Mapping[str, str]) -> dict[str, str]:
    words = names.split(",")
    found = dict(submitted) if "ALL" in words else _login(submitted)
    for word in words:
        name, equals, value = word.partition("=")
        if equals:
            found[name] = value
        elif name in submitted:
            found[name] = submitted[name]
    return found


def _login(submitted: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in submitted.items() if name in KEPT}


def _slurm(folder: Folder, element: Element) -> dict[str, str]:
    job, nodes = element.job.data, hosts.expand(element["nodes"])
    cpus = str(-(-job["cpus"] // len(nodes)))
    both = {
        "ID": str(element.id),
        "NODELIST": element["nodes"],
        "NUM_NODES": str(len(nodes)),
        "CPUS_PER_NODE": cpus,
        "ACCOUNT": job["account"],
        "NAME": job["name"],
        "PARTITION": job["partition"].split(",")[0],
        "QOS": "normal",
        "UID": str(job["uid"]),
        "USER": pwd.getpwuid(job["uid"]).pw_name,
    }
    return {
        **_counts(element, len(nodes)),
        **{f"SLURM_JOB_{name}": value for name, value in both.items()},
        **dict.fromkeys(("SLURM_NODEID", "SLURM_PROCID", "SLURM_LOCALID"), "0"),
        "SLURM_CLUSTER_NAME": folder.config["cluster"],
        "SLURM_CPUS_ON_NODE": cpus,
        "SLURM_JOBID": str(element.id),
        "SLURM_NNODES": str(len(nodes)),
        "SLURM_NODELIST": element["nodes"],
        "SLURM_SUBMIT_DIR": job["submitted_from"],
        "SLURMD_NODENAME": nodes[0],
    }


def _counts(element: Element, nodes: int) -> dict[str, str]:
    """Return the numbers that were asked for."""
    options = element.job.data["options"]
    given = {
        variable: options[option].rstrip("M")
        for option, variables in COUNTS.items()
        for variable in variables
        if option in options
    }
    if element["restarts"]:
        given["SLURM_RESTART_COUNT"] = str(element["restarts"])
    return {**given, "SLURM_TASKS_PER_NODE": _per_node(int(options.get("ntasks", nodes)), nodes)}


def _per_node(tasks: int, nodes: int) -> str:
    """Write `2(x3),1`: the first nodes take one more."""
    low, more = divmod(tasks, nodes)
    groups = [(low + 1, more), (low, nodes - more)]
    return ",".join(f"{n}(x{times})" if times > 1 else f"{n}" for n, times in groups if times)


def _array(element: Element) -> dict[str, str]:
    if not element.job.is_array:
        return {}
    keys = [int(other.key) for other in element.job.elements]
    values = {
        "JOB_ID": element.job.id,
        "TASK_ID": element.key,
        "TASK_COUNT": len(keys),
        "TASK_MIN": min(keys),
        "TASK_MAX": max(keys),
        "TASK_STEP": element.job.data["step"],
    }
    return {f"SLURM_ARRAY_{name}": str(value) for name, value in values.items()}
