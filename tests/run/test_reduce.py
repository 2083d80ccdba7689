"""Farms whose results are merged: the same result on every engine, and whatever ends them."""

from __future__ import annotations

import json
import random
import signal
import time
from collections import Counter, deque
from functools import partial

import h5py
import numpy as np
import pytest
import xarray as xr
from endings import kill

from hpckit.run import snapshots
from hpckit.run.agenda import Agenda
from hpckit.run.batch import TaskRunner
from hpckit.run.calling import Caller
from hpckit.run.engines import Workplace
from hpckit.run.reducing import NOTHING, MergedRows
from hpckit.run.session import work_farm
from hpckit.run.sizing import BatchSizer
from hpckit.spec.job import farm
from hpckit.spec.load import load_file
from hpckit.spec.sweep import Sweep
from hpckit.store.block import TaskState
from hpckit.store.create import create
from hpckit.store.merging import Merge
from hpckit.store.shares import share

SUMS = """
    import operator
    from hpckit import farm

    @farm(seed=3, reduce=operator.add)
    def sums(task, n: int = 0):
        return task.rng.random() * 10.0 ** (n % 30 - 15)
"""

NAPS = """
    import time
    from hpckit import farm

    def merged(left, right):
        return {
            "order": left["order"] + right["order"],
            "total": left["total"] + right["total"],
            "words": left["words"] | {k: left["words"].get(k, 0.0) + v
                                      for k, v in right["words"].items()},
        }

    @farm(seed=7, reduce=merged)
    def nap(task, n: int = 0, ms: float = 10.0):
        time.sleep(ms / 1000)
        x = task.rng.random(3)
        return {"order": f"{n},", "total": x, "words": {f"w{n % 7}": x[0], f"v{n % 5}": x[1]}}
"""
SWEEP = ["n=range(300)", "ms=10"]

FRAGILE = """
    import os
    from pathlib import Path
    from hpckit import farm

    @farm(reduce=lambda a, b: f"({a}{b})")
    def fragile(task, n: int = 0, every: int = 3):
        if n % every == 1 and not Path("mended").exists():
            raise ValueError(f"no {n}")
        return "abcdefghij"[n % 10]
"""


def canonical(values, count, merge):
    """Merge the values of some of `count` tasks along the tree, from its root down."""

    def node(start, span):
        if start >= count or span == 1:
            return values.get(start)
        halves = node(start, span // 2), node(start + span // 2, span // 2)
        there = [half for half in halves if half is not None]
        return merge(*there) if len(there) == 2 else there[0] if there else None

    return node(0, 1 << (count - 1).bit_length())


def result(hpckit, name="result"):
    with h5py.File(hpckit.last() / "results.h5") as file:
        item = file[name]
        return item.asstr()[()] if h5py.check_string_dtype(item.dtype) else item[()]


def test_a_sum_is_the_same_bit_for_bit_on_every_engine(hpckit):
    hpckit.job(SUMS)
    tasks, found = 5003, set()
    for engine, workers in [("serial", 1), ("threads", 3), ("processes", 1), ("processes", 3)]:
        ended = hpckit("run", "job.py", f"n=range({tasks})", "--engine", engine,
                       "--workers", workers)  # fmt: skip
        assert ended.code == 0, ended.stderr
        found.add((hpckit.digest(), result(hpckit).item().hex()))
    numbers = {
        n: np.random.default_rng(np.random.SeedSequence(3, spawn_key=(n,))).random()
        * 10.0 ** (n % 30 - 15)
        for n in range(tasks)
    }
    wanted = canonical(numbers, tasks, float.__add__)
    assert found == {(hpckit.digest(), wanted.hex())}
    # It would show if the order were another.
    assert sum(numbers.values()) != wanted
    with h5py.File(hpckit.last() / "results.h5") as file:
        assert (file["task_state"][()] == 1).all()
        assert len(file["tasks/duration"]) == tasks
        assert file["n"][-1] == tasks - 1
    assert not list((hpckit.last() / "segments").iterdir())


@pytest.mark.timeout(900)
def test_killed_and_resumed_it_gives_the_same(hpckit, moments):
    hpckit.job(NAPS)
    assert hpckit("run", "job.py", *SWEEP, "--engine", "serial").code == 0
    undisturbed = hpckit.digest()
    assert result(hpckit, "order") == "".join(f"{n}," for n in range(300))
    generator, hits = random.Random(20261125), 0
    for _ in range(max(moments // 4, 2)):
        runs = len(hpckit.run_dirs())
        driver = hpckit.start("run", "job.py", *SWEEP, "--workers", 2)
        has_sealed = lambda: any((hpckit.last() / "segments").glob("w*.h5"))  # noqa: E731
        hpckit.until(lambda: len(hpckit.run_dirs()) > runs and has_sealed(), "a segment")  # noqa: B023
        time.sleep(generator.uniform(0, 0.6))
        hits += kill(driver).code == -signal.SIGKILL
        hpckit.assert_all_gone()
        driver = hpckit.start("resume", "last", "--workers", 1)
        time.sleep(generator.uniform(0.3, 1.2))
        kill(driver)
        hpckit.assert_all_gone()
        assert hpckit("resume", "last", "--workers", 3).code == 0
        assert hpckit.digest() == undisturbed
    assert hits


def test_failed_tasks_are_left_out_until_they_are_retried(hpckit):
    hpckit.job(FRAGILE)
    letters = {n: "abcdefghij"[n % 10] for n in range(100)}
    merge = "({}{})".format
    assert hpckit("run", "job.py", "n=range(100)", "--workers", 2).code == 3
    some = {n: text for n, text in letters.items() if n % 3 != 1}
    assert result(hpckit) == canonical(some, 100, merge)
    first = hpckit.digest()
    told = "merged      67 of 100 tasks: 33 tasks left out"
    assert told in hpckit("show", "last").stdout
    assert " ".join(told.split()) in " ".join(hpckit("status", "last").stdout.split())
    # They fail again, and nothing is lost or counted twice.
    assert hpckit("retry", "last", "--engine", "serial").code == 3
    assert hpckit.digest() == first
    (hpckit.directory / "mended").touch()
    assert hpckit("retry", "last", "--engine", "threads", "--workers", 2).code == 0
    assert result(hpckit) == canonical(letters, 100, merge)
    assert "left out" not in hpckit("show", "last").stdout
    whole = hpckit.digest()
    assert hpckit("run", "job.py", "n=range(100)", "--engine", "serial").code == 0
    assert hpckit.digest() == whole


def test_tasks_that_are_tried_again_within_a_session(hpckit):
    hpckit.job("""
        from pathlib import Path
        from hpckit import farm

        @farm(reduce=lambda a, b: f"({a}{b})", task_retries=1)
        def f(n: int = 0):
            if n % 5 == 2 and not Path(f"tried-{n}").exists():
                Path(f"tried-{n}").touch()
                raise ValueError("not yet")
            return str(n)
    """)
    assert hpckit("run", "job.py", "n=range(16)", "--workers", 2).code == 0
    assert result(hpckit) == canonical({n: str(n) for n in range(16)}, 16, "({}{})".format)


def test_a_run_that_is_interrupted_goes_on_from_its_parts(hpckit):
    hpckit.job(NAPS)
    driver = hpckit.start("run", "job.py", *SWEEP, "--workers", 2)
    hpckit.until(
        lambda: hpckit.run_dirs() and any((hpckit.last() / "segments").glob("w*")), "a segment"
    )
    assert kill(driver, signal.SIGINT).code == 130
    assert hpckit.manifest().counts["done"] < 300
    assert hpckit("resume", "last").code == 0
    assert result(hpckit, "order") == "".join(f"{n}," for n in range(300))


def test_a_merge_that_raises_ends_the_run_with_a_clear_error(hpckit):
    hpckit.job("""
        from hpckit import farm

        @farm(reduce=lambda a, b: a + b)
        def f(n: int = 0):
            return 1j if n == 600 else str(n)
    """)
    for command in (("run", "job.py", "n=range(1000)"), ("resume", "last")):
        ended = hpckit(*command, "--workers", 2)
        assert ended.code == 1
        assert "reduce: <lambda>(" in ended.stderr
        assert "raised TypeError: " in ended.stderr
        assert "(job.py, line 4)" in ended.stderr
        assert "Traceback" not in ended.stderr
        manifest = hpckit.manifest()
        assert manifest.state == "failed"
        assert "complex" in manifest.reason
        assert "str" in manifest.reason
        assert not (hpckit.last() / "results.h5").exists()


def test_parts_that_do_not_merge_end_the_run_too(hpckit):
    """Each task is a batch of its own, so that no worker has two to merge."""
    hpckit.job("""
        import time
        from hpckit import farm

        def merge(a, b):
            a.update(b)

        @farm(reduce=merge)
        def f(n: int = 0):
            time.sleep(1.01)
            return {"a": n}
    """)
    ended = hpckit("run", "job.py", "n=1,2", "--workers", 2)
    assert ended.code == 1
    assert (
        "reduce: merge(dict, dict) returned None: it must return the merged value" in ended.stderr
    )
    assert hpckit.manifest().state == "failed"
    assert hpckit.manifest().counts == {"missing": 0, "done": 2, "failed": 0}
    assert hpckit("resume", "last").code == 1


def test_tasks_that_return_what_cannot_be_merged_fail_alone(hpckit):
    hpckit.job("""
        import operator
        import numpy as np
        from hpckit import farm

        @farm(reduce=operator.add)
        def f(n: int = 0):
            return [n] if n == 1 else 2**70 if n == 2 else None if n == 3 else n
    """)
    ended = hpckit("run", "job.py", "n=range(10)", "--workers", 1)
    assert ended.code == 3
    assert "task 1 failed: TypeError: a list cannot be merged and stored" in ended.stderr
    assert "task 2 failed: TypeError: the integer 1180591620717411303424 does" in ended.stderr
    assert result(hpckit) == sum(range(4, 10))
    assert hpckit.manifest().counts == {"missing": 0, "done": 8, "failed": 2}


def test_a_name_that_a_parameter_has_is_refused(hpckit):
    hpckit.job("""
        import numpy as np
        from hpckit import farm

        @farm(reduce=lambda a, b: a)
        def f(n: int = 0):
            return {"n": np.zeros(2)}
    """)
    ended = hpckit("run", "job.py")
    assert ended.code == 3
    assert "field 'n': the name is a parameter" in ended.stderr


COUNTS = """
    from collections import Counter, deque
    from hpckit import farm

    @farm(reduce=lambda a, b: a + b, attrs={"count": {"units": "1"}})
    def letters(n: int = 0):
        return Counter({f"k{i}": i for i in range(1, 31) if n % i == 0})
"""


def test_what_the_commands_make_of_it(hpckit):
    hpckit.job(COUNTS)
    assert hpckit("run", "job.py", "n=range(1,61)").code == 0
    wanted = Counter()
    for n in range(1, 61):
        wanted.update({f"k{i}": i for i in range(1, 31) if n % i == 0})
    with xr.open_dataset(hpckit.last() / "results.h5", engine="h5netcdf") as data:
        assert dict(zip(data["key"].values, data["count"].values, strict=True)) == wanted
        assert data["count"].attrs["units"] == "1"
    shown = hpckit("show", "last", "--rows", 4).stdout
    largest = sorted(wanted.items(), key=lambda item: -item[1])[:4]
    lines = [line.split() for line in shown.splitlines()]
    at = lines.index(["key", "count"])
    assert {line[1] for line in lines[at + 1 : at + 5]} == {str(count) for _, count in largest}
    assert "… and 26 more of 30: --all, or --rows N" in shown
    lines = [line.split() for line in hpckit("show", "last", "--all").stdout.splitlines()]
    at = lines.index(["key", "count"])
    assert {line[0]: int(line[1]) for line in lines[at + 1 :]} == wanted
    document = json.loads(hpckit("show", "last", "--json").stdout)
    counts = document["merged"]["count"]
    assert dict(zip(counts["keys"], counts["values"], strict=True)) == wanted
    assert document["reduce"] == "<lambda>"
    assert hpckit("rerun", "last").code == 0
    first, second = hpckit.run_dirs()
    ended = hpckit("diff", first, second)
    assert (ended.code, "different" in ended.stdout) == (0, False)
    assert hpckit("pack", "last").code == 0
    assert hpckit("digest", first, second).code == 0
    assert hpckit.digest(first) == hpckit.digest(second)


def test_diff_names_what_differs(hpckit):
    hpckit.job(COUNTS)
    assert hpckit("run", "job.py", "n=1").code == 0
    assert hpckit("run", "job.py", "n=2").code == 0
    ended = hpckit("diff", *hpckit.run_dirs())
    assert ended.code != 0
    assert "count" in ended.stdout
    assert "key" in ended.stdout


def test_a_snapshot_shows_what_is_merged_so_far(tmp_path, monkeypatch):
    monkeypatch.setattr(snapshots, "LEAST_SECONDS", 0.0)
    path = tmp_path / "job.py"
    path.write_text(
        "import time\nfrom hpckit import farm\n\n@farm(reduce=lambda a, b: a + b)\n"
        "def f(n: int = 0):\n    time.sleep(0.05)\n    return n\n"
    )
    loaded = load_file(path)
    run = create(loaded, Sweep.from_args(loaded.job, ["n=range(60)"]), root=tmp_path, argv=[])
    seen = set()

    def look(progress):
        if run.dir.results.exists():
            with h5py.File(run.dir.results) as file:
                done = file["task_state"][()] == TaskState.DONE
                assert file["result"][()] == file["n"][done].sum()
                seen.add(int(done.sum()))

    place = Workplace(1, run.dir.log("worker"))
    final = work_farm(run, "serial", place, look, again=frozenset({TaskState.MISSING}))
    assert final.counts["done"] == 60
    assert min(seen) < 60
    with h5py.File(run.dir.results) as file:
        assert file["result"][()] == sum(range(60))


class Counted:
    """A function that notes how many dicts that it has merged away are still alive."""

    def __init__(self) -> None:
        self.alive = self.most = 0

    def made(self) -> Counter:
        self.alive += 1
        self.most = max(self.most, self.alive)
        return Counter(a=1)

    def merge(self, left, right):
        self.alive -= 1
        left.update(right)
        return left


def test_a_worker_holds_few_values_of_a_large_batch(tmp_path):
    counted = Counted()

    @farm(reduce=counted.merge)
    def f(n: int = 0):
        return counted.made()

    sweep = Sweep.from_args(f, [f"n=range({1 << 12})"])
    runner = TaskRunner(Caller(f, sweep, 0, tmp_path), None)
    outcome = runner.run(range(1 << 12), 1)
    # It may be called back after a second.
    assert len(outcome.block) > 100
    assert counted.most <= 14
    assert sum(value["a"] for *_, value in outcome.block.partials.nodes()) == len(outcome.block)


def test_failed_tasks_and_empty_ones_among_merged_rows():
    rows = MergedRows(range(8), Merge(lambda a, b: a + b))
    for row in ("a", "b", NOTHING, "d", None, "f", NOTHING, NOTHING):
        rows.append(row)
    assert len(rows) == 8
    found = [(start, span, value) for start, span, value in rows.partials().nodes()]
    assert found == [(0, 4, "abd"), (5, 1, "f"), (6, 2, None)]


def test_batches_are_aligned():
    agenda, sizer = Agenda(deque([range(5, 1000)]), aligned=True), BatchSizer(2, size=40)
    batches = [agenda.next(sizer, 0).indices for _ in range(5)]
    assert batches == [range(5, 32), *(range(a, a + 32) for a in range(32, 160, 32))]


@pytest.mark.parametrize(("count", "elements"), [(1000, 3), (5, 8), (4096, 4), (1, 1)])
def test_elements_share_runs_of_neighbours(count, elements):
    shares = [partial(share, range(count))(e, elements, together=True) for e in range(elements)]
    assert sorted(np.concatenate(shares).tolist()) == list(range(count))
    assert all((np.diff(found) > 0).all() for found in shares)
    for found in shares:
        runs = np.count_nonzero(np.diff(found) != 1) + 1
        assert runs <= 33 or len(found) == 0
