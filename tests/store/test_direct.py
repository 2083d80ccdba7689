"""Appending past the page cache."""

from __future__ import annotations

import errno
import os
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hpckit.store.direct import BLOCK, STAGING, Appender

SHARED_MEMORY = Path("/dev/shm")

sizes = st.one_of(
    st.integers(0, 3 * BLOCK),
    st.sampled_from([BLOCK, STAGING - 1, STAGING, STAGING + 1, 2 * STAGING + 5]),
)


@pytest.mark.parametrize("folder", [None, SHARED_MEMORY], ids=["disk", "memory"])
@settings(deadline=None, max_examples=50)
@given(parts=st.lists(sizes, max_size=5))
def test_what_is_appended_is_there(folder, parts):
    if folder is not None and not folder.is_dir():
        pytest.skip(f"{folder} is not there: mount a tmpfs")
    random = np.random.default_rng(0)
    with tempfile.TemporaryDirectory(dir=folder) as made:
        path = Path(made) / "file"
        path.touch()
        appender, expected, tail = Appender(), b"", b""
        for size in parts:
            data = random.bytes(size)
            tail = appender.append(path, len(expected), tail, memoryview(data))
            expected += data
            assert tail == expected[len(expected) - len(expected) % BLOCK :]
            found = path.read_bytes()
            assert found[: len(expected)] == expected
            assert found[len(expected) :] == bytes(len(found) - len(expected))
            assert len(found) < len(expected) + BLOCK


def test_what_failed_can_be_appended_again(tmp_path):
    path, data = tmp_path / "file", os.urandom(BLOCK + 7)
    appender = Appender()
    with pytest.raises(OSError, match="No such file") as caught:
        appender.append(path, 0, b"", memoryview(data))
    assert caught.value.errno == errno.ENOENT
    path.touch()
    tail = appender.append(path, 0, b"", memoryview(data))
    assert tail == data[BLOCK:]
    assert path.read_bytes()[: len(data)] == data
