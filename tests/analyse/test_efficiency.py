"""What jobs used of what they asked for, and what is suggested."""

from __future__ import annotations

import json

import pytest

from hpckit.analyse.efficiency import Use, measures
from hpckit.analyse.suggestion import suggestions
from hpckit.jobstates import JobState
from hpckit.spec.resources import Resources
from hpckit.spec.site import Site
from hpckit.store import manifest as manifests
from hpckit.store.manifest import State
from hpckit.store.shares import ElementEnd, tell_end
from hpckit.store.submission import ScheduledJob, Submission
from hpckit.submit import used
from hpckit.submit.client import Refused

MIB = 2**20
OWN = {"mem": "400M", "walltime": "1h"}


def submission(asked=OWN, workers=2, session=1, tasks=8, elements=2):
    return Submission(
        site=Site(name="here"),
        session=session,
        tag=f"hpckit:run:{session}",
        script_sha256="0" * 64,
        resources=Resources.from_options(asked),
        elements=elements if workers else None,
        workers=workers,
        tasks=tasks,
        jobs=(ScheduledJob(id=str(session), elements=elements if workers else None),),
    )


def use(sub=None, *, state=JobState.COMPLETED, seconds=600.0, cpu=0.9, peak=300, **changes):
    """Return an element of two workers that used 300 of 800 MiB and 90% of its CPU time."""
    sub = sub or submission()
    cpus = sub.resources.cpus_per_task * (sub.workers or sub.resources.ntasks)
    known = {
        "id": "1_0",
        "element": 0,
        "cpus": cpus,
        "nodes": sub.resources.nodes or 1,
        "limit": sub.resources.walltime,
        "asked_bytes": (sub.resources.mem or 400 * MIB) * (sub.workers or 1),
        "attempts": 1,
        "longest": seconds,
        "cpu_seconds": None if cpu is None else cpu * cpus * seconds,
        "cpu_seconds_given": cpus * seconds,
        "peak_bytes": None if peak is None else peak * MIB,
    }
    return Use(submission=sub, state=state, seconds=seconds, **{**known, **changes})


def lines(uses, own=OWN):
    return [one.line for one in suggestions(uses, Resources.from_options(own))]


def test_parts_of_one_job():
    one = use()
    assert (one.cpu, one.memory, one.walltime) == pytest.approx((0.9, 300 / 800, 1 / 6))
    assert one.idle_seconds == pytest.approx(120)
    nothing = use(cpu=None, peak=None, seconds=0.0)
    assert (nothing.cpu, nothing.memory, nothing.walltime) == (None, None, None)


def test_all_together_are_weighted():
    uses = [use(seconds=100.0, cpu=1.0, peak=200), use(seconds=300.0, cpu=0.2, peak=400)]
    cpu, memory, walltime = measures([*uses, use(cpu=None, peak=None, seconds=0.0)])
    assert (cpu.used, cpu.asked) == pytest.approx((320, 800))
    assert (cpu.overall, cpu.median, cpu.most, cpu.known) == pytest.approx((0.4, 0.6, 1.0, 2))
    assert (memory.used, memory.asked) == (400 * MIB, 800 * MIB)
    assert memory.overall == pytest.approx((200 * 100 + 400 * 300) / (800 * 400))
    assert (walltime.used, walltime.asked, walltime.known) == (300, 3600, 2)


def test_nothing_known_is_none():
    for measure in measures([use(cpu=None, peak=None, seconds=0.0)]):
        assert (measure.used, measure.overall, measure.median, measure.known) == (None,) * 3 + (0,)
    assert lines([use(cpu=None, peak=None, seconds=0.0, state=JobState.PENDING)]) == []


def test_less_memory_of_a_task_and_less_time():
    # 300 of two tasks: 1.2 × 150; 1.25 × 10 minutes.
    assert lines([use(), use(seconds=60.0)]) == ['mem = "200M"', 'walltime = "15m"']


def test_what_is_about_right_is_left():
    assert lines([use(peak=640, seconds=2700.0)]) == []


def test_a_peak_that_counts_shared_memory_twice_raises_nothing():
    assert lines([use(peak=1000, seconds=2700.0)]) == []


@pytest.mark.parametrize(
    ("state", "line"),
    [(JobState.OUT_OF_MEMORY, 'mem = "800M"'), (JobState.TIMEOUT, 'walltime = "2h"')],
)
def test_killed_jobs_raise_what_they_lacked_and_lower_nothing(state, line):
    assert lines([use(), use(state=state, peak=5, seconds=3600.0)]) == [line]


def test_what_was_too_little_before_is_not_suggested_again():
    before = submission({"mem": "190M", "walltime": "1h"})
    now = submission({"mem": "380M", "walltime": "1h"}, session=2)
    killed = use(before, state=JobState.OUT_OF_MEMORY, peak=5, asked_bytes=2 * 190 * MIB)
    uses = [killed, use(now, asked_bytes=2 * 380 * MIB)]
    assert lines(uses, {"mem": "190M"})[0] == 'mem = "250M"'
    # It did with what it was given the second time, which the job does not say yet.
    uses = [killed, use(now, asked_bytes=2 * 380 * MIB, peak=740, seconds=2700.0)]
    assert lines(uses, {"mem": "190M"})[0] == 'mem = "380M"'


def test_jobs_that_had_to_begin_again_get_the_time_of_all_together():
    assert lines([use(peak=640, attempts=2, seconds=5400.0, longest=3500.0)]) == [
        'walltime = "1h55m"'
    ]


def test_no_job_ended_well():
    assert lines([use(state=JobState.FAILED), use(state=JobState.RUNNING, cpu=None)]) == []


def test_fewer_cpus():
    own = {**OWN, "cpus_per_task": 4}
    uses = [use(submission(own), peak=640, cpu=0.3, seconds=2700.0)]
    assert lines(uses, own) == ["cpus_per_task = 2"]
    assert lines([use(submission(own), peak=640, cpu=0.7, seconds=2700.0)], own) == []
    short = [use(submission(own), peak=640, cpu=0.1, seconds=20.0)]
    assert lines(short, own) == ['walltime = "5m"']


def test_fewer_cpus_need_more_memory_each():
    own = {"mem_per_cpu": "100M", "walltime": "1h", "cpus_per_task": 4}
    uses = [use(submission(own), peak=640, cpu=0.3, seconds=2700.0, asked_bytes=800 * MIB)]
    assert lines(uses, own) == ["cpus_per_task = 2", 'mem_per_cpu = "200M"']


def test_more_workers_than_tasks():
    sub = submission(workers=4, tasks=4)
    found = lines([use(sub, peak=640, seconds=2700.0)])
    assert found == ["--workers 2"]


def test_an_mpi_program_asks_for_the_memory_of_a_node():
    own = {"ntasks": 8, "nodes": 2, "mem": "10G", "walltime": "1h"}
    uses = [use(submission(own, workers=None), element=None, peak=5000, seconds=2700.0)]
    assert lines(uses, own) == ['mem = "6G"']


def test_a_run_that_was_not_submitted(hpckit, make_farm):
    make_farm([{"energy": 1.0}])
    ended = hpckit("efficiency", "last")
    assert ended.exit_code != 0
    assert "was never in a scheduler's queue" in str(ended.exception)
    assert "hpckit show" in str(ended.exception)


@pytest.fixture
def submitted(make_farm, monkeypatch):
    """A farm of two elements; one told its end, and there is no accounting."""
    run = make_farm([{"energy": 1.0}, {"energy": 2.0}], "T=1,2")
    manifest = manifests.read(run.manifest)
    sub = submission(tasks=2, workers=1)
    manifest.updated(submissions=[sub], state=State.COMPLETED).write(run.manifest)
    end = ElementEnd(
        session=1,
        element=1,
        job="1_1",
        host="n1",
        cpu="fast",
        done=True,
        failed=0,
        begun=0.0,
        seconds=100.0,
        cpu_seconds=50.0,
        peak_bytes=120.0 * MIB,
    )
    tell_end(run, end)

    def ask(argv):
        raise Refused("sacct: Slurm accounting storage is disabled")

    monkeypatch.setattr(used, "ask", ask)
    return run


def test_what_elements_told_without_accounting(hpckit, submitted):
    told = json.loads(hpckit("efficiency", "last", "--json").stdout)
    nothing, one = told["jobs"]
    assert (one["cpu"], one["memory_source"]) == (0.5, "element")
    # The largest process, and the one that the worker works for.
    assert one["peak_bytes"] == 220 * MIB
    assert (nothing["cpu_seconds"], nothing["peak_bytes"], nothing["memory"]) == (None,) * 3
    assert told["cpu"]["known"] == 1
    assert "accounting storage is disabled" in told["known_from"]


@pytest.mark.parametrize("columns", [80, 120])
def test_it_fits_the_terminal(hpckit, submitted, columns):
    ended = hpckit("efficiency", "last", columns=columns)
    assert ended.exit_code == 0
    shown = ended.stdout.splitlines()
    assert max(map(len, shown)) <= columns
    row = next(line for line in shown if line.startswith("1_0"))
    assert row.split()[:5] == ["1_0", "unknown", "unknown", "unknown", "unknown"]
    assert "0%" not in row


def test_requeued_elements_and_what_they_told(hpckit, submitted, monkeypatch):
    text = """\
1_0|CANCELLED by 0|0:0|30|60|1|1||400M|00:00.001|||
1_0.batch|CANCELLED|0:15|30||1|1|1||00:00.001|100M|cpu=00:00:00|cpu=00:00:12
1_1|RUNNING|0:0|100|60|1|1||400M|00:00.400|||
1_1.batch|COMPLETED|0:0|100||1|1|1||00:00.400|200M|cpu=00:00:00|cpu=00:00:41
"""
    monkeypatch.setattr(used, "ask", lambda argv: text)
    told = json.loads(hpckit("efficiency", "last", "--json").stdout)
    killed, one = told["jobs"]
    assert (killed["cpu_seconds"], killed["cpu_is_least"]) == (12, True)
    assert (one["state"], one["cpu_seconds"], one["cpu_source"]) == ("completed", 50.0, "element")
    assert (one["peak_bytes"], one["memory_source"]) == (200 * MIB, "accounting")
    assert "≥40%" in hpckit("efficiency", "last").stdout
