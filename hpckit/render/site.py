"""A site as the TOML that it is read from."""

from __future__ import annotations

import json

from hpckit.spec.site import Partition, Site


def site_toml(site: Site) -> str:
    """Return a site's file, with what a user may have to add as comments."""
    lines = [
        f"# The site {site.name}, as its Slurm described itself.",
        '# account = "…"             # what your jobs are charged to',
        f'launcher = "{site.launcher}"           # or mpiexec',
    ]
    if site.mpi:
        lines.append(f'mpi = "{site.mpi}"                # what srun is given as --mpi')
    lines.append('# modules = ["openmpi"]    # what jobs load')
    limits = {name: getattr(site, name) for name in ("max_array_size", "max_submit_jobs")}
    lines += [f"{name} = {limit}" for name, limit in limits.items() if limit is not None]
    for partition in site.partitions:
        lines += ["", "[[partitions]]", *_facts(partition)]
    return "\n".join(lines) + "\n"


def _facts(partition: Partition) -> list[str]:
    facts = partition.model_dump(mode="json", exclude_none=True, exclude_defaults=True)
    # A TOML string or integer is written as JSON's.
    return [f"{name} = {json.dumps(value)}" for name, value in facts.items()]
