"""What squeue and sacct print, read."""

from __future__ import annotations

import pytest

from hpckit.jobstates import JobState, JobStatus
from hpckit.submit.accounting import accounted, expanded, job_state, queued, tags, told_by_steps
from hpckit.submit.client import NoAnswer
from hpckit.submit.slurm import _id


@pytest.mark.parametrize(
    ("job", "ids"),
    [
        ("12", ["12"]),
        ("12_3", ["12_3"]),
        ("12+0", ["12"]),
        ("12_[0-2]", ["12_0", "12_1", "12_2"]),
        ("12_[1,4-5,9%2]", ["12_1", "12_4", "12_5", "12_9"]),
        ("12_[0-6:3]", ["12_0", "12_3", "12_6"]),
        ("12_[0-1,...", ["12_0", "12_1"]),
    ],
)
def test_ids_of_arrays(job, ids):
    assert expanded(job) == ids


@pytest.mark.parametrize(
    ("word", "state"),
    [
        ("CANCELLED by 1000", JobState.CANCELLED),
        ("CANCELLED+", JobState.CANCELLED),
        ("OUT_OF_MEMORY", JobState.OUT_OF_MEMORY),
        ("COMPLETING", JobState.RUNNING),
        ("REQUEUED", JobState.PENDING),
        ("BOOT_FAIL", JobState.NODE_FAIL),
        ("DEADLINE", JobState.TIMEOUT),
        ("SOMETHING_NEW", JobState.UNKNOWN),
        ("", JobState.UNKNOWN),
    ],
)
def test_states(word, state):
    assert job_state(word) is state


def test_rows_of_sacct():
    found = accounted(
        [
            "7_0|COMPLETED|0:0|n1",
            "7_[1-2%1]|PENDING|0:0|None assigned",
            "8|FAILED|75:0|n2",
            "9|FAILED|1:0|n2",
            "nonsense",
        ]
    )
    assert {job: status.state for job, status in found.items()} == {
        "7_0": JobState.COMPLETED,
        "7_1": JobState.PENDING,
        "7_2": JobState.PENDING,
        "8": JobState.TIMEOUT,
        "9": JobState.FAILED,
    }
    assert (found["7_1"].nodes, found["9"].detail) == ("", "exit 1:0")


def test_steps_tell_why_a_job_failed():
    known = {"9": JobStatus("9", JobState.FAILED, "exit 1:0", "n2")}
    lines = ["9|FAILED", "9.batch|FAILED", "9.0|OUT_OF_MEMORY", "10.0|OUT_OF_MEMORY"]
    assert told_by_steps(lines, known) == {"9": JobStatus("9", JobState.OUT_OF_MEMORY, "", "n2")}


def test_rows_of_squeue():
    found = queued(["7_[1-2]|PENDING|Resources|", "8|RUNNING|None|n1"])
    assert found["7_2"] == JobStatus("7_2", JobState.PENDING, "Resources", "")
    assert found["8"] == JobStatus("8", JobState.RUNNING, "", "n1")
    assert tags(["7|hpckit:a:1:0", "8|(null)"])["7"] == "hpckit:a:1:0"


@pytest.mark.parametrize("text", ["12\n", "12;east\n", "welcome\n12\nbye\n"])
def test_the_id_that_sbatch_prints(text):
    assert _id(text) == "12"


def test_no_id_at_all_is_no_refusal():
    with pytest.raises(NoAnswer) as error:
        _id("Submitted batch job 12\n")
    assert error.value.may_have_heard
