"""Tests of submission use the fake Slurm, which needs no root."""

import pytest
from cluster.hpckit_there import There
from drawing import DRAW, SITE
from fakes.fixtures import *  # noqa: F403


@pytest.fixture
def there(fake_slurm):
    """hpckit on a fake cluster."""
    found = There(fake_slurm, SITE)
    found.job(DRAW.format(walltime="5m", options=""))
    return found
