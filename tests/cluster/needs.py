"""What a machine must have for the cluster."""

from __future__ import annotations

import os
from pathlib import Path

PACKAGES = Path(__file__).with_name("packages.txt")
MEMORY_CGROUP = Path("/sys/fs/cgroup/memory/memory.limit_in_bytes")


def lack() -> str:
    """Return in one line what is missing and how to get it, or nothing."""
    if missing := missing_packages():
        return f"Slurm's packages are missing: apt-get install {' '.join(missing)}"
    if os.geteuid() != 0:
        return "a cluster of network namespaces needs root"
    if not MEMORY_CGROUP.exists():
        return "cgroup v1 is not mounted: Slurm 22.05 without systemd limits memory by it"
    return ""


def missing_packages() -> list[str]:
    """Return the Debian packages that are not installed."""
    rows = [line.split() for line in PACKAGES.read_text().splitlines()]
    pairs = [row for row in rows if row and row[0] != "#"]
    return [package for package, file in pairs if not any(Path("/").glob(file[1:]))]
