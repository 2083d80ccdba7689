"""What the controller makes of what sbatch asks for: a job, or a refusal."""

from __future__ import annotations

import os
import pwd
import re
import time
from pathlib import Path

from fakes import dependencies, hosts, indices
from fakes.folder import Folder
from fakes.jobs import Data
from fakes.ledger import Ledger
from fakes.request import Request

_MEMORY = re.compile(r"(\d+)([KMGT]?)B?", re.IGNORECASE)
MIB = {"K": 1 / 1024, "": 1, "M": 1, "G": 1024, "T": 1024**2}
ACCOUNT = "Invalid account or account/partition combination specified"
ARRAY = "Invalid job array specification"
DEPENDENCY = "Job dependency problem"
NODES = "Requested node configuration is not available"
PARTITION = "Invalid partition name specified"
TOO_MANY = "Job violates accounting/QOS policy (job submit limit, user's size and/or time limits)"


class Refused(Exception):
    """The controller's answer is no: the reason, and a line that comes before it."""

    def __init__(self, reason: str, *lines: str) -> None:
        super().__init__(reason)
        self.lines = [f"sbatch: error: {line}" for line in lines]


def admit(ledger: Ledger, request: Request) -> Data:
    """Return what the job's file is to hold, without its number; Refused if it is not taken."""
    chosen = request.chosen
    place = _place(ledger.folder, request)
    array = _array(ledger.folder, chosen.get("array", ""))
    account = _account(ledger.folder, chosen)
    dependency = _dependency(chosen.get("dependency", ""))
    memory = _memory(ledger.folder, chosen)
    _count(ledger, len(array["elements"]))
    held = {"held": "JobHeldUser"} if "hold" in chosen else {}
    for element in array["elements"].values():
        element |= {"state": "PENDING", **held}
    whole = {"account": account, "dependency": dependency, "memory": memory}
    return {**_known(ledger.folder, request), **place, **array, **whole}


def _known(folder: Folder, request: Request) -> Data:
    """Return what is taken as it is."""
    chosen, here = request.chosen, Path.cwd()
    umask = os.umask(0)
    os.umask(umask)
    return {
        "name": chosen["job-name"],
        "comment": chosen.get("comment"),
        "uid": os.getuid(),
        "asked_limit": "time" in chosen,
        "minute": folder.number("minute"),
        "warning": request.warning,
        "cpus": request.cpus,
        "options": chosen,
        "cwd": str(here / chosen.get("chdir", here)),
        "submitted_from": str(here),
        "command": request.command,
        "arguments": request.arguments,
        "line": request.line,
        "umask": umask,
        "submit": int(time.time()),
    }


def _place(folder: Folder, request: Request) -> Data:
    """Choose a partition and its nodes, and how long it may run there."""
    known, chosen = folder.config["partitions"], request.chosen
    names = chosen.get("partition", next(iter(known)))
    if unknown := set(names.split(",")) - known.keys():
        raise Refused(PARTITION, f"invalid partition specified: {min(unknown)}")
    partition = known[names.split(",")[0]]
    nodes, count = _nodes(request, hosts.expand(partition["nodes"]))
    minutes = partition.get("default_minutes", partition["minutes"])
    limit = request.limit if "time" in chosen else minutes and minutes * 60.0
    most = partition["minutes"] and partition["minutes"] * 60.0
    unfit = "PartitionConfig" if count > len(nodes) else None
    if most is not None and (limit is None or limit > most):
        unfit = "PartitionTimeLimit"
    place = {"partition": names, "nodes": nodes, "node_count": count}
    return {**place, "limit": limit, "unfit": unfit}


def _nodes(request: Request, there: list[str]) -> tuple[list[str], int]:
    """Return the nodes that it may run on, and how many it needs."""
    wanted = hosts.expand(request.chosen.get("nodelist", ""))
    excluded = hosts.expand(request.chosen.get("exclude", ""))
    count = max(request.nodes, len(wanted))
    left = [n for n in there if n not in excluded and (not wanted or n in wanted)]
    if len(left) < min(count, len(there)):
        raise Refused(NODES)
    return left, count


def _array(folder: Folder, text: str) -> Data:
    """Return the elements, how many of them run at a time, and the step between them."""
    if not text:
        return {"is_array": False, "throttle": 0, "step": 1, "elements": {"": {}}}
    most = folder.config["max_array_size"]
    try:
        numbers, throttle = indices.array(text)
    except ValueError:
        raise Refused(ARRAY) from None
    if numbers[-1] >= most:
        raise Refused(ARRAY)
    step = re.search(r":(\d+)", text)
    elements: Data = {str(number): {} for number in numbers}
    whole = {"throttle": throttle, "step": int(step[1]) if step else 1}
    return {"is_array": True, **whole, "elements": elements}


def _account(folder: Folder, chosen: Data) -> str:
    """Return the account; the first that is known is the default one."""
    known = folder.config["accounts"]
    if known is None:
        return chosen.get("account", pwd.getpwuid(os.getuid()).pw_name)
    account = chosen.get("account", known[0])
    if account not in known:
        raise Refused(ACCOUNT)
    return account


def _count(ledger: Ledger, more: int) -> None:
    """See to it that there are not too many jobs."""
    most = ledger.folder.config["max_submit_jobs"]
    if most is not None and more + sum(not e.has_ended for e in ledger.elements()) > most:
        raise Refused(TOO_MANY, "AssocMaxSubmitJobLimit")


def _memory(folder: Folder, chosen: Data) -> str:
    """Return the memory of a node or a CPU as sacct writes it."""
    match = _MEMORY.fullmatch(chosen.get("mem") or chosen.get("mem-per-cpu") or "200M")
    mebibytes = int(match[1]) * MIB[match[2].upper()] if match else 0
    if mebibytes > folder.config["memory"]:
        raise Refused(NODES, "Memory specification can not be satisfied")
    return f"{int(mebibytes)}M"


def _dependency(text: str) -> Data | None:
    try:
        conditions = dependencies.read(text) if text else []
    except ValueError:
        raise Refused(DEPENDENCY) from None
    return {"any": "?" in text, "conditions": conditions} if conditions else None
