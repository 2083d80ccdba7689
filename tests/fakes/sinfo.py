"""The command sinfo."""

from __future__ import annotations

import re
from collections.abc import Callable

from fakes import clock, hosts
from fakes.folder import SILENCE, Folder
from fakes.jobs import Data
from fakes.ledger import Ledger
from fakes.options import FLAG, VALUE, Reader

READER = Reader(
    "sinfo",
    {**dict.fromkeys(("noheader", "Node"), FLAG), **dict.fromkeys(("format", "partition"), VALUE)},
    "h=noheader N=Node o=format p=partition",
)
DEFAULT = "%9P %.5a %.10l %.6D %.6t %N"
_FIELD = re.compile(r"%(\.?)(\d*)([A-Za-z])")


def main(argv: list[str]) -> int:
    """Print the partitions and their nodes."""
    folder = Folder.current()
    options = dict(READER.read(argv)[0])
    folder.reach(f"slurm_load_partitions: {SILENCE}")
    form = options.get("format", DEFAULT)
    if "noheader" not in options:
        print(_FIELD.sub(lambda match: _wide(match, HEADERS[match[3]]), form))
    for row in _rows(folder, options):
        print(_FIELD.sub(lambda match, row=row: _wide(match, FIELDS[match[3]](row)), form))
    return 0


def _rows(folder: Folder, options: dict[str, str]) -> list[Data]:
    """Return a row for each partition and state of nodes, or for each node in each partition."""
    rows = []
    busy = {n for e in Ledger(folder).elements() if e.occupies for n in hosts.expand(e["nodes"])}
    for place, (name, partition) in enumerate(folder.config["partitions"].items()):
        if name not in options.get("partition", name).split(","):
            continue
        groups: dict[object, list[str]] = {}
        for node in sorted(hosts.expand(partition["nodes"]), key=lambda n: (n not in busy, n)):
            groups.setdefault(node if "Node" in options else node in busy, []).append(node)
        shared = {**folder.config, **partition, "name": name + ("" if place else "*")}
        rows += [{**shared, "shown": nodes, "busy": nodes[0] in busy} for nodes in groups.values()]
    return sorted(rows, key=lambda row: row["shown"]) if "Node" in options else rows


def _wide(match: re.Match[str], value: str) -> str:
    width = int(match[2] or 0)
    value = value[:width] if width else value
    return value.rjust(width) if match[1] else value.ljust(width)


def _limit(row: Data) -> str:
    return "infinite" if row["minutes"] is None else clock.short(row["minutes"] * 60)


HEADERS = {
    "P": "PARTITION",
    "a": "AVAIL",
    "c": "CPUS",
    "D": "NODES",
    "G": "GRES",
    "l": "TIMELIMIT",
    "m": "MEMORY",
    "N": "NODELIST",
    "t": "STATE",
    "T": "STATE",
}
FIELDS: dict[str, Callable[[Data], str]] = {
    "P": lambda row: row["name"],
    "a": lambda row: "up",
    "c": lambda row: str(row["cpus_per_node"]),
    "D": lambda row: str(len(row["shown"])),
    "G": lambda row: row.get("gres", "(null)"),
    "l": _limit,
    "m": lambda row: str(row["memory"]),
    "N": lambda row: hosts.show(row["shown"]),
    "t": lambda row: "mix" if row["busy"] else "idle",
    "T": lambda row: "mixed" if row["busy"] else "idle",
}
