"""How many pilots there are to be for what is left of a farm, and for how long each works."""

from __future__ import annotations

from pathlib import Path

import pytest

from hpckit.run.engines.pilots import Backlog, Pilots, begins_until, pilots_wanted


def pilots(slots: int = 2, least: int = 0, most: int = 8) -> Pilots:
    return Pilots(None, Path("contact"), "token", "198.18.0.1", slots, least, most)


@pytest.mark.parametrize(
    ("backlog", "wanted"),
    [
        (Backlog(0), 0),
        (Backlog(0, 1.0), 0),
        (Backlog(1), 1),
        (Backlog(3), 2),
        (Backlog(10**6), 4),
        # Ten seconds of work are worth a worker.
        (Backlog(1000, 0.001), 1),
        (Backlog(1000, 0.04), 2),
        (Backlog(1000, 10.0), 4),
        # But no task more than one.
        (Backlog(2, 3600.0), 1),
    ],
)
def test_as_many_as_the_work_is_worth(backlog, wanted):
    assert pilots_wanted(pilots(), backlog) == wanted


def test_between_the_least_and_the_most():
    assert pilots_wanted(pilots(least=3), Backlog(0)) == 2
    assert pilots_wanted(pilots(slots=3, most=8), Backlog(10**6)) == 2
    assert pilots_wanted(pilots(slots=4, least=5, most=5), Backlog(10**6)) == 1


@pytest.mark.parametrize(
    ("walltime", "variables", "until"),
    [
        # A tenth of an hour before its end; a minute; half of a minute.
        (3600, {"HPCKIT_BEGAN": "1000"}, 1000 + 3240),
        (300, {"HPCKIT_BEGAN": "1000"}, 1000 + 240),
        (60, {"HPCKIT_BEGAN": "1000"}, 1000 + 30),
        # Slurm knows better, and where nobody else does.
        (3600, {"HPCKIT_BEGAN": "1000", "SLURM_JOB_END_TIME": "1300"}, 1000 + 240),
        (None, {"HPCKIT_BEGAN": "1000", "SLURM_JOB_END_TIME": "4600"}, 1000 + 3240),
        (None, {"HPCKIT_BEGAN": "1000"}, None),
    ],
)
def test_pilots_leave_before_their_jobs_end(walltime, variables, until):
    assert begins_until(walltime, variables) == until
