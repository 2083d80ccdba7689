"""What tests share that run hpckit as a user does: in processes of its own."""

from __future__ import annotations

import os

import pytest
from hpckit_here import Hpckit

from hpckit.threads import VARIABLES


def pytest_addoption(parser):
    parser.addoption("--renew", action="store_true", help="write the golden scripts anew")
    parser.addoption("--long", action="store_true", help="kill at many more random moments")


@pytest.fixture(autouse=True)
def same_threads():
    """Take back what farms that are worked in this process set for numerical libraries."""
    before = {name: os.environ.get(name) for name in VARIABLES.values()}
    yield
    for name, value in before.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value


@pytest.fixture
def hpckit(tmp_path):
    """hpckit in an empty directory."""
    tool = Hpckit(tmp_path.resolve())
    yield tool
    tool.end()


@pytest.fixture
def moments(request):
    """How many random moments to kill at."""
    return 100 if request.config.getoption("--long") else 5
