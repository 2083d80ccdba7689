"""What two runs were made of, and where that differs."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hpckit.analyse.values import printable, shortened
from hpckit.store.manifest import JobRecord, Manifest
from hpckit.store.rundir import RunDir

ENVIRONMENT = ("hpckit", "python", "implementation", "platform", "host", "cpu", "cores", "mpi")


WIDTH = 60


@dataclass(frozen=True)
class Change:
    """One thing that differs; None where a run has nothing of that name."""

    name: str
    a: Any
    b: Any

    def __str__(self) -> str:
        a, b = (
            "none" if value is None else shortened(printable(str(value)), WIDTH)
            for value in (self.a, self.b)
        )
        return f"{self.name}: {a} → {b}"


@dataclass(frozen=True)
class RunDifference:
    """All that differs between two runs but their results.

    Attributes
    ----------
    job_diff
        The unified difference of the two job files, in lines.
    code, parameters, environment, packages
        What differs; empty where nothing does.
    """

    code: list[Change]
    job_diff: list[str]
    parameters: list[Change]
    environment: list[Change]
    packages: list[Change]


def compare_runs(run_a: RunDir, a: Manifest, run_b: RunDir, b: Manifest) -> RunDifference:
    """Compare two runs' manifests and job files."""
    same = a.job.sha256 == b.job.sha256
    names = list(dict.fromkeys(name for run in (a, b) for name in _values(run)))
    return RunDifference(
        code=changes(_code(a), _code(b)),
        job_diff=[] if same else _job_diff(run_a, a.job, run_b, b.job),
        parameters=changes(_parameters(a, names), _parameters(b, names)),
        environment=changes(_environment(a), _environment(b)),
        packages=changes(a.environment.get("packages", {}), b.environment.get("packages", {})),
    )


def changes(a: dict[str, Any], b: dict[str, Any]) -> list[Change]:
    """Return the entries in which two tables differ, in the first one's order."""
    names = dict.fromkeys((*a, *b))
    return [Change(n, a.get(n), b.get(n)) for n in names if a.get(n) != b.get(n)]


def _code(manifest: Manifest) -> dict[str, Any]:
    git = manifest.environment.get("git") or {}
    return {
        "job": manifest.job.name,
        "job file": manifest.job.sha256[:12],
        **{name: sha256[:12] for name, sha256 in manifest.job.modules.items()},
        "git commit": git.get("commit"),
        "uncommitted": (git.get("diff_sha256") or "")[:12] or None,
    }


def _parameters(manifest: Manifest, names: Sequence[str]) -> dict[str, Any]:
    job = manifest.job
    return {
        **{name: _values(manifest).get(name) for name in names},
        "table": job.table_sha256 and job.table_sha256[:12],
        **{f"input {Path(path).name}": _content(mark) for path, mark in job.inputs.items()},
        "tasks": job.tasks,
        "seed": job.seed,
    }


def _values(manifest: Manifest) -> dict[str, str]:
    return {**manifest.job.assignments, **manifest.job.defaults}


def _content(mark: dict[str, Any]) -> str | None:
    return str(mark["sha256"])[:12] if "sha256" in mark else None


def _environment(manifest: Manifest) -> dict[str, Any]:
    environment = manifest.environment
    resources = manifest.job.resources.model_dump(mode="json", exclude_none=True)
    image = manifest.image
    return {
        "image": None if image is None else image.sha256[:12],
        **{name: environment.get(name) for name in ENVIRONMENT},
        **environment.get("variables", {}),
        "engine": manifest.engine,
        "workers": manifest.workers,
        "ranks": manifest.ranks,
        **resources,
    }


def _job_diff(run_a: RunDir, a: JobRecord, run_b: RunDir, b: JobRecord) -> list[str]:
    texts = []
    for run, job in ((run_a, a), (run_b, b)):
        copy = run.job(Path(job.source).suffix)
        there = copy.is_file()
        texts.append(copy.read_text(errors="replace").splitlines() if there else [])
    name_a, name_b = (f"{run.id}/{Path(job.source).name}" for run, job in ((run_a, a), (run_b, b)))
    return list(difflib.unified_diff(texts[0], texts[1], name_a, name_b, lineterm=""))
