"""What jobs used, from lines that sacct of Slurm 22.05 printed; newer and older forms beside them.

The columns are JobID, State, ExitCode, ElapsedRaw, TimelimitRaw, AllocCPUS, NNodes, NTasks, ReqMem,
TotalCPU, MaxRSS, TRESUsageInTot and TRESUsageInMax.
"""

from __future__ import annotations

import pytest

from hpckit.errors import UsageError
from hpckit.jobstates import JobState
from hpckit.submit import used as module
from hpckit.submit.client import NoAnswer, Refused
from hpckit.submit.used import gathered, used

MIB = 2**20

# Each of its four processes burnt 2 s, held 50 MB, and waited; three were on the first node.
TWO_NODES = """\
282|COMPLETED|0:0|32|5|4|2||600M|00:08.312|||
282.batch|COMPLETED|0:0|32||3|1|1||00:00.011|11214848|cpu=00:00:00,energy=0,mem=11214848|cpu=00:00:00,mem=11214848
282.0|COMPLETED|0:0|31||4|2|4||00:08.300|66207744|cpu=00:00:08,energy=0,mem=264622080|cpu=00:00:02,mem=66207744
"""

# mpiexec starts ranks on the first node in the batch step, on the other by srun.
MPIEXEC = """\
316|COMPLETED|0:0|32|5|4|2||1200M|00:13.284|||
316.batch|COMPLETED|0:0|32||3|1|1||00:06.682|294014976|cpu=00:00:06,mem=294014976|cpu=00:00:06,mem=294014976
316.0|COMPLETED|0:0|32||1|1|1||00:06.602|104443904|cpu=00:00:06,mem=104443904|cpu=00:00:06,mem=104443904
"""

# Two steps, one after the other, of three tasks with 30 MB and one with 80 MB.
STEPS = """\
283|COMPLETED|0:0|39|5|3|1||450M|00:07.296|||
283.batch|COMPLETED|0:0|39||3|1|1||00:00.019|10980K|cpu=00:00:00,mem=10980K|cpu=00:00:00,mem=10980K
283.0|COMPLETED|0:0|31||3|1|3||00:06.181|44164K|cpu=00:00:06,mem=132320K|cpu=00:00:02,mem=44164K
283.1|COMPLETED|0:0|7||3|1|1||00:01.096|95284K|cpu=00:00:01,mem=95284K|cpu=00:00:01,mem=95284K
"""

# The former rows come first, those of the last time at the end.
REQUEUED = """\
286|REQUEUED|0:0|12|5|1|1||100M|00:02.056|||
286.batch|FAILED|75:0|12||1|1|1||00:02.056|36499456|cpu=00:00:02,mem=36499456|cpu=00:00:02
288_0|REQUEUED|0:0|12|5|1|1||100M|00:00.001|||
288_0.batch|CANCELLED|0:15|13||1|1|1||00:00.001|36286464|cpu=00:00:00,mem=36286464|cpu=00:00:02
286|FAILED|75:0|12|5|1|1||100M|00:02.055|||
286.batch|FAILED|75:0|12||1|1|1||00:02.055|36302848|cpu=00:00:02,mem=36302848|cpu=00:00:02
288_0|COMPLETED|0:0|10|5|1|1||100M|00:02.058|||
288_0.batch|COMPLETED|0:0|10||1|1|1||00:02.058|36392960|cpu=00:00:02,mem=36392960|cpu=00:00:02
"""

# It burnt CPU time until it was killed, and nobody was left to wait for it.
TIMEOUT = """\
315|TIMEOUT|0:0|83|1|1|1||200M|00:00.001|||
315.batch|CANCELLED|0:15|84||1|1|1||00:00.001|36163584|cpu=00:00:00,mem=36163584|cpu=00:00:23,mem=36163584
"""

RUNNING = """\
287_3|RUNNING|0:0|31|10|1|1||200M|00:00:00|||
287_3.batch|RUNNING|0:0|31||1|1|1||00:00:00|||
287_[5-9%2]|PENDING|0:0|0|10|1|1||200M|00:00:00|||
284|CANCELLED by 0|0:0|0|5|1|1||2000M|00:00:00|||
"""


def read(text):
    return used(text.splitlines())


def test_a_job_on_two_nodes():
    job = read(TWO_NODES)["282"]
    assert (job.state, job.attempts, job.cpus, job.nodes) == (JobState.COMPLETED, 1, 4, 2)
    assert (job.seconds, job.longest, job.limit) == (32, 32, 300)
    assert job.cpu_seconds == pytest.approx(8.311)
    assert job.cpu_seconds_given == 128
    assert not job.cpu_is_least
    # sacct gives what both nodes were asked for; a node has as many tasks as it has CPUs.
    assert job.asked_bytes == 300 * MIB
    assert job.peak_bytes == 3 * 66207744


def test_ranks_of_mpiexec_are_in_two_steps_on_two_nodes():
    job = read(MPIEXEC)["316"]
    assert job.peak_bytes == 294014976
    assert job.cpu_seconds == pytest.approx(13.284)


def test_steps_that_follow_each_other_do_not_add_up():
    job = read(STEPS)["283"]
    assert job.peak_bytes == 3 * 44164 * 1024
    assert job.cpu_seconds == pytest.approx(7.296)


def test_all_times_that_a_job_ran_count():
    found = read(REQUEUED)
    assert found.keys() == {"286", "288_0"}
    assert [job.attempts for job in found.values()] == [2, 2]
    assert (found["286"].seconds, found["286"].longest) == (24, 12)
    assert found["286"].cpu_seconds == pytest.approx(4.111)
    # It stopped by itself, as its time was nearly up.
    assert found["286"].state is JobState.TIMEOUT
    # The first time it was killed, and what was sampled is all that is known.
    element = found["288_0"]
    assert (element.state, element.cpu_is_least) == (JobState.COMPLETED, True)
    assert element.cpu_seconds == pytest.approx(4.058)
    assert (element.seconds, element.cpu_seconds_given) == (22, 22)
    assert element.peak_bytes == 36392960


def test_a_job_that_was_killed_used_what_was_sampled():
    job = read(TIMEOUT)["315"]
    assert (job.state, job.cpu_seconds, job.cpu_is_least) == (JobState.TIMEOUT, 23, True)


def test_what_was_not_gathered_is_not_zero():
    found = read(RUNNING)
    waiting = [f"287_{number}" for number in range(5, 10)]
    assert list(found) == ["287_3", *waiting, "284"]
    for job in found.values():
        assert (job.cpu_seconds, job.peak_bytes) == (None, None)
        assert job.asked_bytes
    assert (found["287_3"].state, found["287_3"].seconds) == (JobState.RUNNING, 31)
    assert (found["287_5"].state, found["287_5"].attempts) == (JobState.PENDING, 0)
    assert found["284"].state is JobState.CANCELLED


def test_a_step_that_has_ended_is_not_all_of_a_running_job():
    text = STEPS.replace("283|COMPLETED", "283|RUNNING")
    job = read(text)["283"]
    assert job.cpu_seconds is None
    assert job.peak_bytes == 3 * 44164 * 1024


@pytest.mark.parametrize(
    ("written", "total", "polled", "seconds"),
    [
        ("00:00.431", "cpu=00:00:00", "", 0.431),
        ("12:34.5", "", "", 754.5),
        ("01:02:03", "", "", 3723),
        ("2-03:00:01", "", "", 183601),
        ("00:00:00", "cpu=01:00:05,energy=0,mem=4G", "", 3605),
        ("00:00:00", "cpu=1-00:00:00", "", 86400),
        ("00:00.4", "cpu=00:00:00,mem=1", "energy=0,cpu=00:00:12", 12),
        ("00:00:00", "vcpu=00:00:09", "", None),
        ("", "", "", None),
        ("INVALID", "cpu=", "", None),
    ],
)
def test_forms_of_cpu_time(written, total, polled, seconds):
    text = f"1|COMPLETED|0:0|10|5|1|1||1G||||\n1.batch|COMPLETED|0:0|10||1|1|1||{written}|1K|"
    assert read(f"{text}{total}|{polled}")["1"].cpu_seconds == seconds


def test_a_job_whose_steps_say_nothing_says_it_itself():
    text = "1|COMPLETED|0:0|10|5|1|1||1G|00:03.5|||\n1.batch|COMPLETED|0:0|10||1|1|1|||||"
    assert read(text)["1"].cpu_seconds == 3.5
    assert read(text)["1"].peak_bytes is None


@pytest.mark.parametrize(
    ("written", "size"),
    [
        ("600M", 300 * MIB),
        ("4G", 2048 * MIB),
        ("1.50G", 768 * MIB),
        ("4Gn", 4096 * MIB),
        ("1000Mn", 1000 * MIB),
        ("2Gc", 2 * 2048 * MIB),
        ("0n", None),
        ("0", None),
        ("", None),
        ("16?", None),
    ],
)
def test_forms_of_asked_memory(written, size):
    assert read(f"1|COMPLETED|0:0|10|5|4|2||{written}||||")["1"].asked_bytes == size


@pytest.mark.parametrize("written", ["UNLIMITED", "Partition_Limit", ""])
def test_no_limit(written):
    assert read(f"1|COMPLETED|0:0|10|{written}|1|1||1G||||")["1"].limit is None


@pytest.mark.parametrize("line", ["", "1|COMPLETED", "1.batch|COMPLETED|0:0|1||1|1|1||||||"])
def test_lines_that_do_not_read(line):
    assert read(line) == {}


@pytest.mark.parametrize(
    "error",
    [
        Refused("sacct: Slurm accounting storage is disabled"),
        NoAnswer("sacct: Connection refused", may_have_heard=False),
        UsageError("sacct: no such program"),
    ],
)
def test_no_accounting(monkeypatch, error):
    def ask(argv):
        raise error

    monkeypatch.setattr(module, "ask", ask)
    assert gathered(["1"], "2026-11-24") == ({}, str(error))


def test_many_ids_are_asked_for_at_a_time(monkeypatch):
    asked = []

    def ask(argv):
        asked.append(argv[-1].split(","))
        return TWO_NODES if "282" in asked[-1] else ""

    monkeypatch.setattr(module, "ask", ask)
    found, why = gathered([str(number) for number in range(12000)], "2026-11-24")
    assert (list(found), why) == (["282"], None)
    assert [len(ids) for ids in asked] == [5000, 5000, 2000]
