"""Tests of images use real ones."""

import pytest
from image.images import *  # noqa: F403


@pytest.fixture(autouse=True)
def needed(apptainer_there):
    """No test does without."""
