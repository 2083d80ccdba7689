"""Which card each task works on: one for each, and none for two unless that is asked for."""

from __future__ import annotations

import os

import pytest

from hpckit.errors import LaunchError, SpecError
from hpckit.run.gpu import claims
from hpckit.spec.resources import Resources

FARM = """
    import os, time
    from hpckit import farm

    @farm({options})
    def job(task, i: int = 0, seconds: float = 0.5):
        card = task.gpu.uuid
        time.sleep(seconds)
        return {{"card": card, "pid": os.getpid()}}
"""

RANKS = """
    from hpckit import spmd

    @spmd({options})
    def job(run):
        cards = run.comm.gather(run.gpu.uuid)
        if run.rank == 0:
            run.log(" ".join(cards))
"""


def uuids(cards):
    return {card["uuid"] for card in cards.manifest().gpus}


def test_each_worker_has_a_card_of_its_own(cards):
    cards.job(FARM.format(options="gpus_per_task=1"))
    assert cards("run", "job.py", "i=range(4)", "--workers", 2).code == 0
    assert len(cards.manifest().gpus) == 2
    assert len(uuids(cards)) == 2


def test_more_workers_than_cards_are_refused_with_the_remedy(cards):
    cards.job(FARM.format(options="gpus_per_task=1"))
    ended = cards("run", "job.py", "i=range(9)", "--workers", 3)
    assert ended.code == 2
    assert "--workers 3: the GPUs that this process sees take 2 tasks at a time" in ended.stderr
    assert "ntasks_per_gpu" in ended.stderr
    assert not cards.run_dirs()


def test_as_many_workers_as_cards_unless_told(cards):
    cards.job(FARM.format(options="gpus_per_task=1"))
    assert cards("run", "job.py", "i=range(8)", env={"SOFTWARE_GPUS": "1"}).code == 0
    assert cards.manifest().workers == 1
    assert len(uuids(cards)) == 1


def test_tasks_that_share_a_card(cards):
    cards.job(FARM.format(options="ntasks_per_gpu=2"))
    one = {"SOFTWARE_GPUS": "1"}
    assert cards("run", "job.py", "i=range(8)", "--workers", 2, env=one).code == 0
    assert len(cards.manifest().gpus) == 2
    assert len(uuids(cards)) == 1


def test_a_card_that_tasks_share_is_free_for_none_that_wants_it_alone(cards):
    cards.job(FARM.format(options="ntasks_per_gpu=2"), "shared.py")
    cards.job(FARM.format(options="gpus_per_task=1"), "alone.py")
    one = {"SOFTWARE_GPUS": "1"}
    shared = cards.start("run", "shared.py", "seconds=25", "-o", "first", env=one)
    cards.until(lambda: cards("gpu", "list", env=one).stdout.split()[-1].isdecimal(), "it is taken")
    ended = cards("run", "alone.py", env=one)
    assert ended.code == 1
    assert "no free GPU" in ended.stderr
    shared.kill()


@pytest.mark.parametrize("engine", ["serial", "threads", "asyncio"])
def test_engines_in_one_process(cards, engine):
    text = FARM.format(options="gpus_per_task=1")
    if engine == "asyncio":
        text = text.replace("def job", "async def job").replace("time.sleep", "time.sleep")
    cards.job(text)
    ended = cards("run", "job.py", "i=range(4)", "seconds=0.1", "--engine", engine)
    assert ended.code == 0, ended.stderr
    assert len(uuids(cards)) == (2 if engine == "threads" else 1)


def test_ranks_have_cards_by_their_number_on_the_node(cards):
    cards.job(RANKS.format(options="ntasks=2, gpus_per_task=1"))
    ended = cards("run", "job.py")
    assert ended.code == 0, ended.stderr
    told = cards.logs() + ended.stdout
    first, second = (
        line for line in told.splitlines() if line.startswith("GPU-")
    ).__next__().split()
    assert (first[-2:], second[-2:]) == ("00", "01")
    assert len(uuids(cards)) == 2


def test_more_ranks_than_cards_are_refused(cards):
    cards.job(RANKS.format(options="ntasks=3, gpus_per_task=1"))
    ended = cards("run", "job.py")
    assert ended.code == 1
    assert "no free GPU" in ended.stderr
    cards.job(RANKS.format(options="ntasks=3, ntasks_per_gpu=2"))
    assert cards("run", "job.py").code == 0
    assert len(uuids(cards)) == 2


def test_a_card_that_another_run_has_is_left_to_it(cards):
    cards.job(FARM.format(options="gpus_per_task=1"))
    one = {"SOFTWARE_GPUS": "1"}
    first = cards.start("run", "job.py", "seconds=60", "-o", "first", env=one)
    cards.until(lambda: list(cards.directory.glob("first/*/progress.json")), "it runs")
    cards.until(lambda: cards("run", "job.py", env=one).code == 1, "the card is taken")
    first.kill()
    first.wait()
    cards.until(lambda: cards("run", "job.py", "seconds=0", env=one).code == 0, "it is free again")


def test_devices_that_are_hidden_are_left_alone(cards):
    cards.job(FARM.format(options="gpus_per_task=1"))
    assert cards("run", "job.py", env={"CUDA_VISIBLE_DEVICES": "1"}).code == 0
    (card,) = cards.manifest().gpus
    assert (card["uuid"][-2:], card["ordinal"], card["visible"]) == ("01", 0, 1)
    none = cards("run", "job.py", env={"CUDA_VISIBLE_DEVICES": ""})
    assert none.code == 1
    assert "no GPU can be had" in none.stderr
    assert "CUDA_VISIBLE_DEVICES" in none.stderr


def test_a_place_for_claims_that_is_somebody_elses_is_not_used(tmp_path, monkeypatch):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.setattr(claims, "Path", lambda _: tmp_path)
    assert claims.folder().stat().st_mode & 0o777 == 0o700
    claims.folder().rmdir()
    (tmp_path / f"hpckit-gpus-{os.getuid()}").symlink_to(elsewhere)
    with pytest.raises(LaunchError, match="is no folder of yours"):
        claims.folder()


def test_the_two_ways_of_asking_exclude_each_other():
    with pytest.raises(SpecError, match="gpus_per_task and ntasks_per_gpu exclude each other"):
        Resources.from_options({"gpus_per_task": 1, "ntasks_per_gpu": 2}, owner="@farm")


def test_how_many_cards_some_tasks_have():
    assert Resources(gpus_per_task=2).gpus_of(3) == 6
    assert Resources(ntasks_per_gpu=4).gpus_of(5) == 2
    assert Resources().gpus_of(5) == 0
