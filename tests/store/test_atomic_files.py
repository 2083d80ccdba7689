from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest

from hpckit.errors import StoreError
from hpckit.store import rundir
from hpckit.store.atomic import remove_leftovers, replacing, write_bytes
from hpckit.store.fields import Piece, RankFile
from hpckit.store.newfile import new_file
from hpckit.store.results import assemble, task_states
from hpckit.store.segments import SegmentWriter, list_segments


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 1 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", folder]
    try:
        done = subprocess.run(command, capture_output=True, text=True)
    except FileNotFoundError:
        pytest.skip("a small disk needs the command mount, which is missing")
    if done.returncode:
        pytest.skip(f"a small disk needs the right to mount a tmpfs: {done.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


def test_the_new_content_takes_the_place_of_the_old(tmp_path):
    path = tmp_path / "file"
    path.write_text("old")
    with replacing(path) as temporary:
        temporary.write_text("new")
        assert path.read_text() == "old"
        assert temporary.parent == path.parent
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_a_failure_leaves_the_old_content_and_nothing_else(tmp_path, error):
    path = tmp_path / "file"
    path.write_text("old")

    def write():
        with replacing(path) as temporary:
            temporary.write_text("half")
            raise error

    with pytest.raises(error):
        write()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_that_is_not_there_is_named(tmp_path):
    path = tmp_path / "none" / "file"
    with pytest.raises(StoreError, match="cannot be written: No such file") as raised:
        write_bytes(path, b"x")
    assert str(raised.value).startswith(str(path))


def test_an_error_that_is_no_writing_error_stays_what_it_is(tmp_path):
    with pytest.raises(RuntimeError, match="of the caller"), replacing(tmp_path / "file"):
        raise RuntimeError("of the caller")


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        OSError(errno.EDQUOT, "Disk quota exceeded"),
        OSError("Can't write (errno = 28, error message = 'No space left on device')"),
        RuntimeError("Can't close (errno = 28, error message = 'No space left on device')"),
    ],
)
def test_a_full_disk_is_told_with_the_remedy_however_it_is_reported(tmp_path, error):
    path = tmp_path / "file"
    with pytest.raises(StoreError, match=r"no space left .* resume") as raised, replacing(path):
        raise error
    assert "\n" not in str(raised.value)


def test_leftovers_of_one_file_are_removed(tmp_path):
    path = tmp_path / "results.h5"
    mine, other = tmp_path / ".results.h5.x1.tmp", tmp_path / ".run.json.x1.tmp"
    for each in (path, mine, other):
        each.touch()
    remove_leftovers(path)
    assert sorted(tmp_path.iterdir()) == sorted([path, other])


def test_a_full_disk_leaves_the_old_file(small_disk):
    path = small_disk / "file"
    write_bytes(path, b"old")
    with pytest.raises(StoreError, match="no space left"):
        write_bytes(path, bytes(2 << 20))
    assert path.read_bytes() == b"old"
    assert list(small_disk.iterdir()) == [path]


def test_a_full_disk_leaves_what_was_sealed(small_disk, block):
    run = rundir.create(small_disk, "job")
    writer = SegmentWriter(run.segments)
    tried = []

    def fill():
        for task in range(100):
            tried.append(task)
            writer.seal([block({task: {"x": np.zeros(4000)}})])

    with pytest.raises(StoreError, match="no space left"):
        fill()
    # The last one may be sealed too: then it was the merge that found no space.
    assert 10 < len(tried) < 100
    assert task_states(run, 100)[: len(tried) - 1].all()
    assert all(segment.is_intact() for segment in list_segments(run.segments))


def test_a_full_disk_in_an_assembly_leaves_the_segments(small_disk, block, points):
    run = rundir.create(small_disk, "job")
    SegmentWriter(run.segments).seal([block({i: {"x": np.zeros(20_000)} for i in range(4)})])
    with pytest.raises(StoreError, match=r"results\.h5: no space left"):
        assemble(run, points(4), "{}", {})
    assert sorted(path.name for path in run.path.iterdir()) == ["logs", "segments"]
    assert len(list_segments(run.segments)) == 1
    subprocess.run(["mount", "-o", "remount,size=8m", small_disk], check=True)
    assert assemble(run, points(4), "{}", {})["done"] == 4


def test_a_full_disk_ends_the_save_of_a_rank(small_disk):
    run = rundir.create(small_disk, "job")
    file = RankFile(run, 0)
    for name, size in (("small", 10), ("large", 1 << 18)):
        array = np.zeros(size)
        piece = Piece.of(name, array, None, None, None, {}, 0)
        if name == "small":
            file.save(piece, array)
        else:
            with pytest.raises(StoreError, match="no space left"):
                file.save(piece, array)
    assert list(run.segments.iterdir()) == []
    file.seal()
    assert list(run.segments.iterdir()) == []


WRITE = """
import sys
from pathlib import Path
import h5py, numpy as np
from hpckit.errors import StoreError
from hpckit.store.atomic import replacing
from hpckit.store.newfile import new_file
try:
    with replacing(Path(sys.argv[1])) as path, new_file(path) as file:
        if sys.argv[2] == "datasets":
            for i in range(4000):
                file[f"x{i}"] = np.zeros(100)
        elif sys.argv[2] == "texts":
            texts = file.create_dataset("t", (50_000,), h5py.string_dtype())
            texts[:] = np.array(["abcdefgh" * 4] * 50_000, object)
        else:
            chunks = file.create_dataset("c", (0,), "f8", maxshape=(None,), chunks=(1 << 14,))
            for i in range(20):
                chunks.resize(((i + 1) << 14,))
                chunks[i << 14 :] = 1
except StoreError as error:
    print(error)
"""


@pytest.mark.parametrize("what", ["datasets", "texts", "chunks"])
def test_hdf5_neither_crashes_nor_complains_on_a_full_disk(small_disk, what):
    """Left to itself, the library crashes the process at its end."""
    command = [sys.executable, "-W", "error", "-c", WRITE, small_disk / "file", what]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert "no space left" in done.stdout
    assert list(small_disk.iterdir()) == []


def test_a_new_file_is_an_ordinary_hdf5_file(tmp_path):
    path = tmp_path / "x.h5"
    with new_file(path) as file:
        file["x"] = np.arange(100_000)
        ragged = file.create_dataset("r", (0,), "f8", maxshape=(None,), chunks=(64,))
        for i in range(50):
            ragged.resize(((i + 1) * 100,))
            ragged[i * 100 :] = i
        assert file["x"][70_000] == 70_000
        del file["x"]
    with h5py.File(path, "r") as file:
        assert list(file) == ["r"]
        assert file["r"][()].tolist() == [float(i) for i in range(50) for _ in range(100)]


def test_no_descriptor_stays_open(tmp_path):
    def opened():
        return len(list(Path("/proc/self/fd").iterdir()))

    before = opened()
    with pytest.raises(ZeroDivisionError), new_file(tmp_path / "x.h5") as file:
        file["x"] = 1 // 0
    assert opened() == before
    with pytest.raises(IsADirectoryError), new_file(tmp_path):
        pass
    assert opened() == before
    assert os.listdir(tmp_path) == ["x.h5"]  # noqa: PTH208
