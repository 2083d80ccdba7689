"""Policies: what is allowed, and what they make of jobs that did not end well."""

from __future__ import annotations

import pytest

from hpckit.errors import SpecError
from hpckit.jobstates import JobState, JobStatus, Standing
from hpckit.spec.job import farm
from hpckit.spec.policy import Policy
from hpckit.spec.resources import Resources
from hpckit.spec.site import Site
from hpckit.spec.toml import command_job
from hpckit.store.submission import Submission
from hpckit.submit.policy import remedy

GROWING = Policy(on_out_of_memory="double up to 6G", on_timeout="double up to 3h")


def submission(session: int, cause: str | None = None, **asked: object) -> Submission:
    return Submission(
        site=Site(name="s"),
        session=session,
        tag="t",
        script_sha256="",
        resources=Resources.from_options({"mem": "2G", "walltime": "1h", **asked}),
        cause=cause,
    )


def standing(*states: JobState) -> Standing:
    return Standing([JobStatus(f"1_{i}", s, "", f"n{i}") for i, s in enumerate(states)], 1)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"on_out_of_memory": "triple"}, "'triple' is not allowed; a limit, such as"),
        ({"on_out_of_memory": "double up to 3 apples"}, "is not an amount of memory"),
        ({"on_timeout": "double up to 0"}, "too short"),
        ({"on_node_fail": "ignore"}, "'ignore'"),
        ({"retries": {"cancelled": 1}}, "'cancelled' is no class of failure; there are failed"),
        ({"retries": {"failed": 0}}, "at least 1"),
        ({"max_restarts": -1}, "at least 0"),
        ({"signal": "KILL"}, "'KILL'"),
        ({"on_out_of_memory": "double up to 4G"}, "on_out_of_memory: has no mem to double"),
        ({"on_timeout": "double up to 4h"}, "on_timeout: has no walltime to double"),
    ],
)
def test_what_is_refused(options, told):
    with pytest.raises(SpecError) as refused:
        farm(**options)(lambda: None)
    assert told in str(refused.value)


def test_a_commands_policy_stands_in_its_file(tmp_path):
    text = 'command = "true"\n[policy]\nmax_restarts = 2\nretries = { node_fail = 1 }\n'
    assert command_job(text, tmp_path / "a.toml").policy.retries == {"node_fail": 1}
    with pytest.raises(SpecError, match=r"policy.restarts: unknown key; \[policy\] has signal"):
        command_job(text.replace("max_restarts", "restarts"), tmp_path / "a.toml")


@pytest.mark.parametrize(
    ("walltime", "warning", "seconds"),
    [(None, None, 120), (60, None, 15), (3600, None, 120), (180, "5m", 90), (3600, "5m", 300)],
)
def test_the_warning_leaves_at_least_half_the_walltime(walltime, warning, seconds):
    policy = Policy() if warning is None else Policy(warning=warning)
    assert policy.seconds_before(walltime) == seconds


def test_requests_grow_up_to_their_limit():
    first = remedy(GROWING, [submission(1)], standing(JobState.OUT_OF_MEMORY))
    assert str(first) == "out_of_memory: submitted again with mem=4G (try 1 of 3)"
    second = [submission(1), submission(2, "out_of_memory", mem="4G")]
    assert str(remedy(GROWING, second, standing(JobState.OUT_OF_MEMORY)).resources.mem) == "6G"
    third = [*second, submission(3, "out_of_memory", mem="6G")]
    assert remedy(GROWING, third, standing(JobState.OUT_OF_MEMORY)) is None
    longer = remedy(GROWING, [submission(1)], standing(JobState.TIMEOUT))
    assert str(longer.resources.walltime) == "02:00:00"


def test_nothing_is_tried_that_no_policy_names_or_that_somebody_cancelled():
    assert remedy(Policy(), [submission(1)], standing(JobState.NODE_FAIL)) is None
    assert remedy(GROWING, [submission(1)], standing(JobState.COMPLETED)) is None
    ended = standing(JobState.OUT_OF_MEMORY, JobState.OUT_OF_MEMORY, JobState.CANCELLED)
    assert remedy(GROWING, [submission(1)], ended) is None


def test_tries_are_counted_by_class_and_anew_after_a_user():
    policy = Policy(retries={"node_fail": 1}, on_node_fail="exclude")
    ended = standing(JobState.NODE_FAIL, JobState.COMPLETED)
    first = remedy(policy, [submission(1)], ended)
    assert (first.number, list(first.excluded)) == (1, ["n0"])
    assert remedy(policy, [submission(1), submission(2, "node_fail")], ended) is None
    by_hand = [submission(1), submission(2, "node_fail"), submission(3)]
    assert remedy(policy, by_hand, ended).number == 1
