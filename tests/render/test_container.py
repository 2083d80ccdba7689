"""Launch lines of programs in images, and what these see of the host."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from hpckit.render.container import (
    KEPT,
    Container,
    hpckit_argv,
    kept_patterns,
    kept_variables,
    outermost,
)
from hpckit.render.script import Script, render
from hpckit.spec.site import Site
from hpckit.store.image import ImageRecord

IMAGE = ImageRecord(path="/images/my image.sif", sha256="0" * 64, size=1)

ECHO = """#!/bin/sh
for word; do echo "<$word>"; done
"""


@pytest.fixture
def apptainer(tmp_path, monkeypatch):
    """A program of that name that prints its arguments."""
    (tmp_path / "apptainer").write_text(ECHO)
    (tmp_path / "apptainer").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.delenv("PMIX_SERVER_TMPDIR", raising=False)


def words(argv):
    """Return the arguments that apptainer gets."""
    said = subprocess.run(argv, check=True, capture_output=True, text=True).stdout
    return [line[1:-1] for line in said.splitlines()]


def test_the_line_is_what_apptainer_gets(apptainer):
    container = Container(IMAGE, (Path("/runs"), Path("/runs/a b")), ("/data:/in",), gpu=True)
    assert words(hpckit_argv(container, ["run", "a b", 'n="$x"'])) == [
        *("--quiet", "exec", "--no-home", "--env", "PYTHONNOUSERSITE=1", "--nv"),
        *("--bind", "/runs", "--bind", "/data:/in", "/images/my image.sif"),
        *("hpckit", "run", "a b", 'n="$x"'),
    ]


def test_ranks_see_where_their_pmix_server_listens(apptainer, monkeypatch):
    monkeypatch.setenv("PMIX_SERVER_TMPDIR", "/node/pmix 7")
    found = words(Container(IMAGE).argv(["true"]))
    assert found[:4] == ["--quiet", "exec", "--bind", "/node/pmix 7"]


@pytest.mark.parametrize(
    ("folders", "kept"),
    [
        ([], []),
        (["/"], []),
        (["/a/b", "/a", "/a/b/c", "/ab"], ["/a", "/ab"]),
    ],
)
def test_folders_within_others_are_left_out(folders, kept):
    assert outermost(map(Path, folders)) == list(map(Path, kept))


def test_what_goes_into_an_image():
    host = {"PATH": "/bin", "PYTHONPATH": "x", "OMPI_A": "1", "AWS_SECRET": "y", "LC_ALL": "C"}
    assert kept_variables(host) == {"PATH": "/bin", "OMPI_A": "1", "LC_ALL": "C"}
    assert kept_patterns(None, ["MINE"]) == ()
    assert kept_patterns(Container(IMAGE), ["MINE"]) == (*KEPT, "MINE")


def test_a_script_keeps_the_same(tmp_path):
    script = Script(
        "farm.sh",
        "title",
        {},
        ["env", "-0"],
        {"MINE": "a\nb"},
        workers=1,
        kept=kept_patterns(Container(IMAGE), ["MINE"]),
    )
    path = Path(tmp_path / "script.sh")
    path.write_text(render(script, Site(name="own"), "0.1.0"))
    host = {"PATH": "/usr/bin:/bin", "PYTHONPATH": "x", "OMPI_A": "1 2", "A_SECRET": "y\nz"}
    said = subprocess.run(
        ["bash", str(path)], env=host, check=True, capture_output=True, text=True
    ).stdout
    found = dict(entry.split("=", 1) for entry in said.split("\0") if "=" in entry)
    # Those that bash itself sets are none of the host's.
    assert {k: v for k, v in found.items() if k not in ("_", "PWD", "SHLVL", "OLDPWD")} == {
        "PATH": "/usr/bin:/bin",
        "OMPI_A": "1 2",
        "MINE": "a\nb",
    }
