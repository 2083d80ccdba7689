"""What `scontrol show` prints."""

from __future__ import annotations

import pwd
import time

from fakes import clock, dependencies
from fakes.dispatch import VERSION
from fakes.folder import Folder
from fakes.jobs import Element
from fakes.ledger import Ledger


def config(folder: Folder) -> str:
    """Return some of the configuration."""
    kind = "none" if folder.has("no-accounting") else "slurmdbd"
    values = {
        "AccountingStorageType": f"accounting_storage/{kind}",
        "ClusterName": folder.config["cluster"],
        "JobRequeue": "1",
        "KillWait": f"{folder.number('kill_wait'):.0f} sec",
        "MaxArraySize": folder.config["max_array_size"],
        "MinJobAge": f"{folder.number('min_job_age'):.0f} sec",
        "ProctrackType": f"proctrack/{folder.config['proctrack']}",
        "SLURM_VERSION": VERSION,
    }
    head = f"Configuration data as of {clock.stamp(time.time())}"
    return "\n".join([head, *(f"{name:<23} = {value}" for name, value in values.items())])


def element(shown: Element) -> str:
    """Return the block of one element; the real one says more."""
    job, user = shown.job.data, pwd.getpwuid(shown.job.data["uid"]).pw_name
    array = f" ArrayJobId={shown.job.id} ArrayTaskId={shown.key}" if shown.job.is_array else ""
    batch = shown["batch"] or {"code": 0, "signal": 0}
    start, end = (clock.stamp(shown[n]) if shown[n] else "Unknown" for n in ("start", "end"))
    rows = [
        f"JobId={shown.id}{array} JobName={job['name']}",
        f"UserId={user}({job['uid']}) Account={job['account']} QOS=normal",
        f"JobState={shown.in_queue} Reason={shown['held'] or shown['reason'] or 'None'} "
        f"Dependency={dependencies.show(Ledger(Folder.current()), shown)}",
        f"Requeue={int(shown.job.may_come_back())} Restarts={shown['restarts'] or 0} BatchFlag=1 "
        f"ExitCode={batch['code']}:{batch['signal']}",
        f"TimeLimit={clock.long(clock.shown(job['limit']))}",
        f"SubmitTime={clock.stamp(shown['submit'] or job['submit'])}",
        f"StartTime={start} EndTime={end}",
        f"Partition={job['partition']}",
        f"NodeList={shown['nodes'] or ''}",
        f"Command={job['command']}",
        f"WorkDir={job['cwd']}",
        *([] if job["comment"] is None else [f"Comment={job['comment']} "]),
    ]
    return "\n   ".join(rows) + "\n"
