"""The configuration files of the cluster."""

from __future__ import annotations

import os
import socket
import stat
from dataclasses import dataclass
from pathlib import Path

NODES = ("n1", "n2", "n3", "n4")
NETWORK = "198.18.77"
"""Of the addresses that are set aside for testing networks (RFC 2544)."""
CONTROLLER = f"{NETWORK}.1"
CPUS, MEMORY, GPUS = 4, 2000, 2
"""What each node claims to have, memory in MB; neither CPUs nor GPUs need be there."""

SLURM = """\
ClusterName=hpckit
SlurmctldHost={host}({controller})
SlurmUser=root
SlurmdUser=root
SlurmctldPort=27817
SlurmdPort=27818
AuthType=auth/munge
AuthInfo=socket={state}/munge.socket,cred_expire=15
StateSaveLocation={state}/controller
SlurmctldPidFile={state}/slurmctld.pid
SlurmdPidFile={state}/local/slurmd.pid
SlurmdSpoolDir={state}/local/slurmd
TmpFS={state}/local

# Cores and memory are what is given out; memory is a limit, and going over it kills.
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
DefMemPerCPU=200
TaskPlugin=task/cgroup
GresTypes=gpu
ProctrackType=proctrack/cgroup
MpiDefault=none
PropagateResourceLimits=NONE
SlurmdParameters=config_overrides

# sacct: steps, exit codes, memory used.
AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost={controller}
AccountingStoragePort=27819
AccountingStoragePass={state}/munge.socket
AccountingStorageEnforce=limits
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=task=1

# Everything soon.
SlurmdTimeout=10
MessageTimeout=10
TCPTimeout=2
KillWait=3
MinJobAge=5
ReturnToService=2
SchedulerParameters=batch_sched_delay=0,sched_interval=1,bf_interval=2
MaxArraySize={max_array_size}

# Jobs may come back to the queue: a dead node's, and those of `spare` for others;
# `cred_expire` above is how long that takes.
JobRequeue=1
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE

NodeName=DEFAULT Sockets=1 CoresPerSocket={cpus} RealMemory={memory} TmpDisk=500 Gres=gpu:{gpus}
NodeName=n[1-4] NodeAddr={network}.[11-14]
PartitionName=main  Nodes=n[1-4] Default=YES MaxTime=01:00:00 PriorityTier=2 PreemptMode=OFF
PartitionName=short Nodes=n[1-2] MaxTime=00:02:00 DefaultTime=1 PriorityTier=2 PreemptMode=OFF
PartitionName=spare Nodes=n[1-4] MaxTime=01:00:00 PriorityTier=1 PreemptMode=REQUEUE
"""

SLURMDBD = """\
DbdHost={host}
DbdAddr={controller}
DbdPort=27819
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket={state}/munge.socket
PidFile={state}/slurmdbd.pid
StorageType=accounting_storage/mysql
StorageHost=localhost
StorageUser=root
"""

CGROUP = """\
CgroupPlugin=cgroup/v1
ConstrainRAMSpace=yes
"""

GRES = "Name=gpu File={state}/gpu[0-{last_gpu}]\n"
"""Of each node: any device files will do."""

MPI = "PMIxCliTmpDirBase={state}/local\n"


@dataclass(frozen=True)
class Limits:
    """What a site sets to its liking and a user runs into."""

    max_array_size: int = 1001
    max_submit_jobs: int = 500


def address(node: str) -> str:
    """Return a node's address."""
    return f"{NETWORK}.{11 + NODES.index(node)}"


def write(state: Path, limits: Limits) -> None:
    """Write all files into the state folder."""
    host = socket.gethostname().partition(".")[0]
    values = {
        "host": host,
        "controller": CONTROLLER,
        "network": NETWORK,
        "state": state,
        "cpus": CPUS,
        "memory": MEMORY,
        "gpus": GPUS,
        "last_gpu": GPUS - 1,
        "max_array_size": limits.max_array_size,
    }
    for folder in ("etc", "records", "logs", "users", "controller", "local", "database"):
        (state / folder).mkdir(mode=0o755)
    texts = {"slurm": SLURM, "slurmdbd": SLURMDBD, "cgroup": CGROUP, "gres": GRES, "mpi": MPI}
    for name, text in texts.items():
        path = state / "etc" / f"{name}.conf"
        path.write_text(text.format_map(values))
    (state / "etc" / "slurmdbd.conf").chmod(0o600)
    for number in range(GPUS):
        os.mknod(state / f"gpu{number}", 0o666 | stat.S_IFCHR, os.makedev(1, 3))
    (state / "hosts").write_text(_hosts(host))
    key = state / "munge.key"
    key.touch(mode=0o600)
    key.write_bytes(os.urandom(128))


def _hosts(host: str) -> str:
    """Return the /etc/hosts of the nodes."""
    lines = ["127.0.0.1 localhost", f"{CONTROLLER} {host}"]
    return "".join(f"{line}\n" for line in [*lines, *(f"{address(n)} {n}" for n in NODES)])
