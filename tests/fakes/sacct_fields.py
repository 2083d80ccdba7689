"""The columns of sacct."""

from __future__ import annotations

import grp
import os
import pwd
import time
from collections.abc import Callable

from fakes import clock, hosts, indices
from fakes.failures import Failure
from fakes.folder import Folder
from fakes.jobs import Data, Element

_NAMES = """
Account AdminComment AllocCPUS AllocNodes AllocTRES AssocID AveCPU AveCPUFreq AveDiskRead
AveDiskWrite AvePages AveRSS AveVMSize BlockID Cluster Comment Constraints ConsumedEnergy
ConsumedEnergyRaw Container CPUTime CPUTimeRAW DBIndex DerivedExitCode Elapsed ElapsedRaw Eligible
End ExitCode Flags GID Group JobID JobIDRaw JobName Layout MaxDiskRead MaxDiskReadNode
MaxDiskReadTask MaxDiskWrite MaxDiskWriteNode MaxDiskWriteTask MaxPages MaxPagesNode MaxPagesTask
MaxRSS MaxRSSNode MaxRSSTask MaxVMSize MaxVMSizeNode MaxVMSizeTask McsLabel MinCPU MinCPUNode
MinCPUTask NCPUS NNodes NodeList NTasks Partition Priority QOS QOSRAW Reason ReqCPUFreq
ReqCPUFreqGov ReqCPUFreqMax ReqCPUFreqMin ReqCPUS ReqMem ReqNodes ReqTRES Reservation ReservationId
Reserved ResvCPU ResvCPURAW Start State Submit SubmitLine Suspended SystemComment SystemCPU
Timelimit TimelimitRaw TotalCPU TRESUsageInAve TRESUsageInMax TRESUsageInMaxNode TRESUsageInMaxTask
TRESUsageInMin TRESUsageInMinNode TRESUsageInMinTask TRESUsageInTot TRESUsageOutAve TRESUsageOutMax
TRESUsageOutMaxNode TRESUsageOutMaxTask TRESUsageOutMin TRESUsageOutMinNode TRESUsageOutMinTask
TRESUsageOutTot UID User UserCPU WCKey WCKeyID WorkDir
"""
NAMES = _NAMES.split()
WIDTHS = {
    **dict.fromkeys(("JobID", "JobIDRaw"), -12),
    **dict.fromkeys(("Start", "End", "Submit", "Eligible"), 19),
    **dict.fromkeys(("NodeList", "DerivedExitCode"), 15),
    **dict.fromkeys(("AllocNodes", "ExitCode", "NNodes", "NTasks", "ReqCPUS", "UID"), 8),
    "Comment": 14,
    "User": 9,
    "MaxRSS": 10,
    "WorkDir": 20,
    "SubmitLine": 20,
}
OWN = ("COMPLETED", "FAILED")
"""States in which a job's exit code is its script's."""


class Row:
    """A record of an element (or of an array's that are still together), or of its step."""

    def __init__(self, folder: Folder, group: list[Element], data: Data) -> None:
        self.folder, self.group, self.data = folder, group, data
        self.element, self.job = group[0], group[0].job.data
        self.batch: Data = data.get("batch") or {}
        self.is_step = False

    def step(self) -> Row:
        """Return the row of the batch script."""
        row = Row(self.folder, self.group, self.data)
        row.is_step = True
        return row

    def name(self, number: str) -> str:
        """Return a number or name, as the step has it."""
        return f"{number}.batch" if self.is_step else number

    def label(self) -> str:
        """Return `12`, `12_3` or `12_[4-9%2]`."""
        element = self.element
        if not element.job.is_array or "id" in element.data:
            return self.name(element.label)
        keys = [int(other.key) for other in self.group]
        return f"{element.job.id}_[{indices.show(keys, self.job['throttle'])}]"

    def state(self) -> str:
        """Return the state; a cancelled job's names who did it."""
        state = self.data["state"]
        if not self.is_step:
            by = self.data.get("by")
            return f"{state} by {by}" if state == "CANCELLED" and by is not None else state
        if not self.batch:
            return state
        if state == "OUT_OF_MEMORY":
            return state
        if self.batch["signal"]:
            return "CANCELLED"
        return "FAILED" if self.batch["code"] else "COMPLETED"

    def exit_code(self) -> str:
        """Return the status and the signal that it ended with."""
        state = self.data["state"]
        if state == "OUT_OF_MEMORY":
            return "0:125"
        if state == "NODE_FAIL" and self.is_step:
            return ""
        if not self.batch or not (self.is_step or state in OWN):
            return "0:0"
        return f"{self.batch['code']}:{self.batch['signal']}"

    def ended(self) -> float | None:
        """Return when it ended."""
        return (self.is_step and self.batch.get("end")) or self.data.get("end")

    def elapsed(self) -> float:
        """Return how long it has run."""
        start = self.data.get("start")
        return max(0, int(self.ended() or time.time()) - start) if start else 0

    def limit(self) -> float | str | None:
        """Return the time limit, or in words that nobody set one."""
        if self.is_step:
            return ""
        is_open = not self.job["asked_limit"] and self.data.get("start") is None
        return "Partition_Limit" if is_open else clock.shown(self.job["limit"])

    def cpu(self, which: slice) -> str:
        """Return the time of the CPU."""
        return clock.cpu(sum(self.batch.get("cpu", [0.0])[which]))

    def start(self) -> str:
        """Return when it started."""
        if self.data.get("start"):
            return clock.stamp(self.data["start"])
        return "None" if self.data.get("end") else "Unknown"


def _of_job(value: Callable[[Row], object]) -> Callable[[Row], str]:
    return lambda row: "" if row.is_step else str(value(row))


def _of_step(value: Callable[[Row], object]) -> Callable[[Row], str]:
    return lambda row: str(value(row)) if row.is_step and row.batch else ""


def _limit(row: Row) -> str:
    limit = row.limit()
    return limit if isinstance(limit, str) else clock.long(limit)


def _limit_raw(row: Row) -> str:
    limit = row.limit()
    if isinstance(limit, str):
        return limit
    return "UNLIMITED" if limit is None else str(int(limit // 60))


def _comment(row: Row) -> str:
    kept = row.folder.config["store_comments"]
    return (row.job["comment"] or "") if kept and not row.is_step else ""


VALUES: dict[str, Callable[[Row], str]] = {
    "Account": lambda row: row.job["account"],
    "AllocCPUS": lambda row: str(row.job["cpus"]),
    "AllocNodes": lambda row: str(len(hosts.expand(row.data.get("nodes") or "x"))),
    "AveRSS": _of_step(lambda row: f"{row.batch['rss']}K"),
    "Cluster": lambda row: row.folder.config["cluster"],
    "Comment": _comment,
    "CPUTime": lambda row: clock.long(row.elapsed() * row.job["cpus"]),
    "CPUTimeRAW": lambda row: str(int(row.elapsed() * row.job["cpus"])),
    "DerivedExitCode": _of_job(lambda row: "0:0"),
    "Elapsed": lambda row: clock.long(row.elapsed()),
    "ElapsedRaw": lambda row: str(int(row.elapsed())),
    "Eligible": lambda row: clock.stamp(row.data.get("submit") or row.job["submit"]),
    "End": lambda row: clock.stamp(row.ended()) if row.ended() else "Unknown",
    "ExitCode": Row.exit_code,
    "Group": _of_job(lambda row: grp.getgrgid(os.getgid()).gr_name),
    "JobID": Row.label,
    "JobIDRaw": lambda row: row.name(str(row.element.id)),
    "JobName": lambda row: "batch" if row.is_step else row.job["name"].replace('"', "`"),
    "MaxRSS": _of_step(lambda row: f"{row.batch['rss']}K"),
    "NCPUS": lambda row: str(row.job["cpus"]),
    "NNodes": lambda row: str(row.job["node_count"]),
    "NodeList": lambda row: row.data.get("nodes") or "None assigned",
    "NTasks": lambda row: "1" if row.is_step else "",
    "Partition": _of_job(lambda row: row.job["partition"]),
    "QOS": _of_job(lambda row: "normal"),
    "Reason": _of_job(lambda row: row.data.get("reason") or "None"),
    "ReqCPUS": lambda row: str(row.job["cpus"]),
    "ReqMem": _of_job(lambda row: row.job["memory"]),
    "Start": Row.start,
    "State": Row.state,
    "Submit": lambda row: clock.stamp(row.data.get("submit") or row.job["submit"]),
    "SubmitLine": _of_job(lambda row: row.job["line"]),
    "SystemCPU": lambda row: row.cpu(slice(1, 2)),
    "Timelimit": _limit,
    "TimelimitRaw": _limit_raw,
    "TotalCPU": lambda row: row.cpu(slice(2)),
    "UID": _of_job(lambda row: row.job["uid"]),
    "User": _of_job(lambda row: pwd.getpwuid(row.job["uid"]).pw_name),
    "UserCPU": lambda row: row.cpu(slice(1)),
    "WorkDir": _of_job(lambda row: row.job["cwd"]),
}


class Field:
    """A column: its name as Slurm writes it, its value, its width; negative: to the left."""

    def __init__(self, text: str) -> None:
        typed, _, width = text.partition("%")
        found = [name for name in NAMES if name.lower().startswith(typed.lower())]
        if not found:
            raise Failure(f'sacct: error: Invalid field requested: "{typed}"')
        self.name = found[0]
        self.signed = int(width or WIDTHS.get(self.name, 10))
        self.width = abs(self.signed)
        self.value = VALUES.get(self.name, lambda row: "")

    def text(self, value: str) -> str:
        """Return a value as wide as the column; `+` says that some is missing."""
        if len(value) > self.width:
            value = f"{value[: self.width - 1]}+"
        return value.ljust(self.width) if self.signed < 0 else value.rjust(self.width)


def read(text: str) -> list[Field]:
    """Read the names of columns."""
    return [Field(name) for name in text.split(",") if name]


def all_names() -> str:
    """Return all columns as `sacct --helpformat` prints them."""
    rows = [NAMES[start : start + 4] for start in range(0, len(NAMES), 4)]
    return "\n".join(" ".join(name.ljust(19) for name in row) for row in rows)
