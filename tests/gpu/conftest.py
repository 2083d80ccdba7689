"""hpckit on cards, for the tests that want some."""

from __future__ import annotations

import pytest
from gpu_here import SOFTWARE, OnCards


@pytest.fixture(scope="session")
def kernels(tmp_path_factory):
    """A folder of cubins that the tests of one process share."""
    return tmp_path_factory.mktemp("kernels")


@pytest.fixture
def cards(tmp_path, kernels):
    """hpckit in an empty directory, on two cards."""
    if not (SOFTWARE / "libcuda.so.1").is_file():
        pytest.skip("needs PyCUDA: .ci/cuda FOLDER builds it, and HPCKIT_GPU_ENV=FOLDER names it")
    tool = OnCards(tmp_path.resolve(), kernels)
    yield tool
    tool.end()
