"""The fakes' own tests use them as all others do."""

import pytest
from fakes.asking import USER
from fakes.fixtures import *  # noqa: F403
from fakes.session import FakeSlurm


@pytest.fixture
def both(any_slurm):
    """The fake one, set up as the test cluster is, and that."""
    if isinstance(any_slurm, FakeSlurm):
        any_slurm.configure(accounts=[USER], max_submit_jobs=500, min_job_age=5)
    return any_slurm
