"""What the cluster takes of the machine outside its own folder: a bridge and cgroups.

The bridge also says that a cluster is there, and where: its alias is the state folder.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
from functools import partial
from pathlib import Path

from cluster.errors import ClusterError
from cluster.waiting import until

BRIDGE = "hpckit"
CGROUPS = Path("/sys/fs/cgroup")
CONTROLLERS = ("memory", "freezer")


def find() -> Path | None:
    """Return the state folder of the cluster that is here."""
    shown = _ip("-json", "link", "show", BRIDGE, must=False)
    if not shown:
        return None
    return Path(json.loads(shown)[0].get("ifalias", "/nonexistent"))


def claim(state: Path, address: str) -> None:
    """Lay the bridge: from here on this is the machine's only test cluster."""
    _ip("link", "add", BRIDGE, "type", "bridge")
    _ip("link", "set", BRIDGE, "alias", str(state))
    _ip("address", "add", f"{address}/24", "dev", BRIDGE)
    _ip("link", "set", BRIDGE, "up")


def release() -> None:
    """Take the bridge away."""
    _ip("link", "delete", BRIDGE, must=False)


def plug(node: str, direction: str) -> None:
    """Set a node's end of its cable on the bridge up or down."""
    _ip("link", "set", cable(node), direction)


def unplug(node: str) -> None:
    """Take a node's cable away; a dead node's goes by itself, but later."""
    _ip("link", "delete", cable(node), must=False)


def cable(node: str) -> str:
    """Return the name of a node's cable at the bridge."""
    return f"{BRIDGE}-{node}"


def make_cgroups(cluster: str, node: str) -> list[Path]:
    """Make a node's cgroups, each the root of what the node sees."""
    made = [CGROUPS / name / cluster / node for name in CONTROLLERS]
    for path in made:
        path.mkdir(parents=True, exist_ok=True)
    return made


def remove_cgroups(cluster: str, node: str = ".") -> None:
    """Remove a node's cgroups or those of all, as soon as the kernel has let go of the dead."""
    for name in CONTROLLERS:
        top = CGROUPS / name / cluster / node
        until(partial(_remove_tree, top), 10, f"cgroup {top} empties")


def _remove_tree(top: Path) -> bool:
    for folder in sorted(top.rglob("*/"), reverse=True):
        with contextlib.suppress(OSError):
            folder.rmdir()
    with contextlib.suppress(OSError):
        top.rmdir()
    return not top.exists()


def _ip(*arguments: str, must: bool = True) -> str:
    done = subprocess.run(["ip", *arguments], capture_output=True, text=True)
    if must and done.returncode:
        raise ClusterError(f"ip {' '.join(arguments)}: {done.stderr.strip()}")
    return done.stdout if done.returncode == 0 else ""
