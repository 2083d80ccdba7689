"""Results that are merged: whatever happens to the parts, the whole is that of one fixed tree."""

from __future__ import annotations

import operator
import random
import shutil
import tempfile
from collections import Counter
from dataclasses import replace
from pathlib import Path

import h5py
import netCDF4
import numpy as np
import pytest
import xarray as xr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hpckit.errors import ReduceError, StoreError
from hpckit.store import partialfiles, rundir, segments
from hpckit.store.block import make_block
from hpckit.store.digest import digest
from hpckit.store.merging import Merge
from hpckit.store.neighbours import merged
from hpckit.store.partials import Partials, joined
from hpckit.store.results import assemble, show_so_far, task_states
from hpckit.store.segments import SegmentWriter, list_segments
from hpckit.store.tree import Nodes, aligned, folded, largest


def in_brackets(left, right):
    """Not associative, so that the tree shows in the result."""
    return f"({left} {right})"


def canonical(values, count, merge):
    """Merge the values of some of `count` tasks along the tree, from its root down."""

    def node(start, span):
        if start >= count or span == 1:
            return values.get(start)
        halves = node(start, span // 2), node(start + span // 2, span // 2)
        there = [half for half in halves if half is not None]
        return merge(*there) if len(there) == 2 else there[0] if there else None

    return node(0, 1 << max(count - 1, 0).bit_length())


def a_block(outcomes, merge):
    """Return what a worker gives for some tasks: a value each, or None for a failed one."""
    nodes, tasks = Nodes(merge), sorted(outcomes)
    for task in tasks:
        if outcomes[task] is not None:
            nodes.add(task, 1, outcomes[task])
    errors = {p: "boom" for p, task in enumerate(tasks) if outcomes[task] is None}
    times = np.zeros(len(tasks))
    block = make_block(tasks, [], errors, times, times, worker=1)
    return replace(block, partials=Partials.of(nodes))


def result_of(run):
    with h5py.File(run.results) as file:
        return file["result"].asstr()[()] if "result" in file else None


@given(st.sets(st.integers(0, 300)), st.integers(0, 100))
def test_what_is_left_is_folded_along_the_tree(tasks, seed):
    """In whatever order tasks come, and whichever are there."""
    order = sorted(tasks)
    random.Random(seed).shuffle(order)
    nodes = Nodes(in_brackets)
    for task in order:
        nodes.add(task, 1, str(task))
    starts = [start for start, *_ in nodes]
    assert starts == sorted(starts)
    assert {t for start, span, _ in nodes for t in range(start, start + span)} == tasks
    wanted = canonical({task: str(task) for task in tasks}, 301, in_brackets)
    assert folded(nodes, in_brackets) == wanted


def test_few_values_are_held_of_tasks_in_order():
    nodes, most = Nodes(in_brackets), 0
    for task in range(1 << 12):
        nodes.add(task, 1, "x")
        most = max(most, len(nodes))
    assert most <= 12
    assert len(nodes) == 1


def test_the_largest_of_nodes_that_overlap_counts():
    task = np.array([4, 0, 0, 6, 2, 4, 0, 9])
    span = np.array([2, 1, 4, 1, 2, 4, 4, 1])
    chosen = largest(task, span)
    assert list(zip(task[chosen], span[chosen], strict=True)) == [(0, 4), (4, 4), (9, 1)]
    assert len(largest(task[:0], span[:0])) == 0


@given(st.integers(0, 10**6), st.integers(1, 10**5))
def test_batches_end_where_they_make_few_nodes(start, size):
    end = aligned(start, size)
    assert start < end <= start + size
    assert end % (1 << size.bit_length() - 1) == 0


class Farm:
    """A farm whose tasks end, fail and are sealed in a random way."""

    def __init__(self, folder: Path, seed: int, points) -> None:
        self.random = random.Random(seed)
        self.run = rundir.create(folder, "job")
        self.count = self.random.randrange(1, 70)
        self.points = points(self.count)
        self.merge = Merge(in_brackets)
        self.values = {}

    def session(self, failing: set[int]) -> None:
        """Do what is not done by several writers; results.h5 may be written before the end."""
        states = task_states(self.run, self.count)
        left = [task for task in range(self.count) if states[task] != 1]
        writers = [SegmentWriter(self.run.segments, merge=self.merge) for _ in range(2)]
        for batch in self._batches(left):
            outcomes = {task: None if task in failing else str(task) for task in batch}
            self.values |= {task: v for task, v in outcomes.items() if v is not None}
            before = {path: path.read_bytes() for path in self.run.segments.iterdir()}
            self.random.choice(writers).seal([a_block(outcomes, self.merge)])
            if self.random.random() < 0.1:
                # Killed while it removed what it had merged into another segment.
                for path, content in before.items():
                    if not path.exists() and self.random.random() < 0.5:
                        path.write_bytes(content)
            if self.random.random() < 0.1:
                show_so_far(self.run, self.points, "{}", {}, self.merge)
                self.check()
        if self.random.random() < 0.5:
            writers[0].merge_all()

    def end(self) -> None:
        kept = {path: path.read_bytes() for path in self.run.segments.iterdir()}
        assemble(self.run, self.points, "{}", {}, self.merge)
        self.check()
        if self.random.random() < 0.3:
            # Killed before it had removed them all; then taken up again.
            for path, content in kept.items():
                if self.random.random() < 0.5:
                    path.write_bytes(content)
            assemble(self.run, self.points, "{}", {}, self.merge)
            self.check()

    def check(self) -> None:
        assert result_of(self.run) == canonical(self.values, self.count, in_brackets)

    def _batches(self, left: list[int]):
        batches = []
        while left:
            size = self.random.choice([1, 2, 3, 5, 8, 16])
            batches.append(left[:size])
            left = left[size:]
        self.random.shuffle(batches)
        return batches


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(seed=st.integers(0, 10**9))
def test_each_task_is_in_the_result_once_whatever_happens(points, seed):
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(segments, "FANOUT", 3)
        for limit in ("SEAL_SECONDS", "MERGE_SECONDS"):
            patch.setattr(segments, limit, random.Random(f"{limit}{seed}").choice([-1.0, 60.0]))
        patch.setattr(partialfiles, "SMALL_BYTES", random.Random(seed).choice([0, 1000]))
        farm = Farm(Path(folder), seed, points)
        for share in (0.5, 0.2, 0.0):
            failing = {t for t in range(farm.count) if farm.random.random() < share}
            farm.session(failing)
            farm.end()
        assert set(farm.values) == set(range(farm.count))
        assert not list(farm.run.segments.iterdir())
        with h5py.File(farm.run.results) as file:
            assert "partials" not in file["hpckit"]
            assert file.attrs["hpckit_reduced"] == farm.count


def test_a_digest_does_not_tell_how_parts_were_grouped(tmp_path, points):
    numbers = {task: 1 / (task + 1) for task in range(100)}
    found = set()
    for size in (1, 7, 100):
        run = rundir.create(tmp_path, "job")
        writer = SegmentWriter(run.segments, merge=Merge(lambda a, b: a + b))
        for start in range(0, 100, size):
            some = {t: numbers[t] for t in range(start, min(start + size, 100))}
            writer.seal([a_block(some, writer.merge)])
        assemble(run, points(100), "{}", {}, writer.merge)
        with h5py.File(run.results) as file:
            found.add((digest(run.results), file["result"][()].hex()))
    assert found == {(digest(run.results), canonical(numbers, 100, float.__add__).hex())}
    assert sum(numbers.values()) != canonical(numbers, 100, float.__add__)


def test_parts_of_another_run_are_not_taken_for_all(run, points):
    """A segment whose tasks are done, but whose partial results are gone."""
    merge = Merge(in_brackets)
    writer = SegmentWriter(run.segments, merge=merge)
    writer.seal([a_block({0: "a", 1: "b"}, merge)])
    block = a_block({2: "c", 3: "d"}, merge)
    writer.seal([replace(block, partials=None)])
    with pytest.raises(StoreError, match="are of 2 tasks, and 4 are done"):
        assemble(run, points(4), "{}", {}, merge)
    assert len(list_segments(run.segments)) == 2
    assert not run.results.exists()


def written(tmp_path, points, value, attributes=None):
    run = rundir.create(tmp_path, "job")
    merge = Merge(in_brackets)
    SegmentWriter(run.segments, merge=merge).seal([a_block({0: value, 1: None}, merge)])
    assemble(run, points(2), "{}", attributes or {}, merge)
    netCDF4.Dataset(run.results).close()
    with xr.open_dataset(run.results, engine="h5netcdf") as data:
        assert data.attrs["hpckit_reduced"] == 1
        assert data["T"].dims == ("task",)
        return data.load()


@pytest.mark.parametrize(
    "value", [3, 2.5, True, 1 + 2j, "täxt", np.float32(1.5), np.uint8(7), np.float16(0.5)]
)
def test_a_single_value_is_a_scalar(tmp_path, points, value):
    found = written(tmp_path, points, value, {"result": {"units": "m"}})["result"]
    assert found.dims == ()
    assert found.item() == value
    assert found.attrs["units"] == "m"


@pytest.mark.parametrize("dtype", ["f8", "f4", "i2", "?", "c16", "f2"])
def test_an_array_keeps_its_axes(tmp_path, points, dtype):
    value = np.arange(6).reshape(2, 3).astype(dtype)
    found = written(tmp_path, points, value)["result"]
    assert found.dims == ("result_0", "result_1")
    np.testing.assert_array_equal(found, value)
    assert found.dtype == ("f4" if dtype == "f2" else dtype)


@pytest.mark.parametrize(
    ("value", "name"),
    [
        (Counter({"zü": 3, "a": 1}), "count"),
        ({"b": 0.5, "a": 1}, "result"),
        ({7: 2.5, -1: 0.5}, "result"),
        ({"x": "one", "y": "two"}, "result"),
        ({}, "result"),
        (Counter(), "count"),
    ],
)
def test_a_table_has_its_keys_in_their_order(tmp_path, points, value, name):
    data = written(tmp_path, points, value, {"key": {"long_name": "the key"}})
    assert data["key"].values.tolist() == list(value)
    assert data[name].dims == ("key",)
    assert data[name].values.tolist() == list(value.values())
    assert data["key"].attrs["long_name"] == "the key"


def test_values_by_name_are_variables(tmp_path, points):
    value = {"n": 3, "hits": np.arange(3), "text": "abc", "words": Counter(a=2), "key": {1: 0.5}}
    data = written(tmp_path, points, value)
    assert data["n"] == 3
    assert data["hits"].values.tolist() == [0, 1, 2]
    assert data["text"] == "abc"
    assert data["words"].sel(words_key="a") == 2
    assert data["key"].sel(key_key=1) == 0.5


def test_names_that_parameters_have_are_left_to_them(tmp_path, points):
    run = rundir.create(tmp_path, "job")
    merge = Merge(in_brackets)
    SegmentWriter(run.segments, merge=merge).seal([a_block({0: {"a": 2}}, merge)])
    assemble(run, points(1, key=float, result=int), "{}", {}, merge)
    with xr.open_dataset(run.results, engine="h5netcdf") as data:
        assert data["result_"].sel(key_="a") == 2
        assert data["key"].dims == ("task",)


def test_tasks_that_have_nothing_to_add(run, points):
    merge = Merge(in_brackets)
    block = replace(a_block({0: "a", 1: "b"}, merge), partials=Partials.of([(0, 2, None)]))
    SegmentWriter(run.segments, merge=merge).seal([block])
    for _ in range(2):
        assemble(run, points(2), "{}", {}, merge)
        with h5py.File(run.results) as file:
            assert "result" not in file
            assert file.attrs["hpckit_reduced"] == 2
    assert Merge(in_brackets)("a", None) == Merge(in_brackets)(None, "a") == "a"


def divided(a, b):
    return 1 / 0


@pytest.mark.parametrize(
    ("function", "told"),
    [
        (
            operator.add,
            r"^reduce: add\(int, str\) raised TypeError: unsupported .*'int' and 'str'$",
        ),
        (divided, r"divided\(int, str\) raised ZeroDivisionError: .* \(test_.*py, line \d+\)$"),
        (lambda a, b: None, r"returned None: it must return the merged value$"),
        (lambda a, b: [a, b], r"returned what is no result: a list cannot be merged"),
    ],
)
def test_errors_of_merging_name_it_and_what_it_was_given(function, told):
    with pytest.raises(ReduceError, match=told):
        Merge(function)(1, "a")


def test_what_does_not_merge_is_kept_until_the_end(run, points):
    def broken(a, b):
        raise ValueError("no")

    merge, writer = Merge(in_brackets), SegmentWriter(run.segments, merge=Merge(broken))
    writer.seal([a_block({0: "a"}, merge), a_block({1: "b"}, merge)])
    writer.seal([a_block({2: "c"}, merge)])
    writer.merge_all()
    with pytest.raises(ReduceError, match="ValueError: no"):
        assemble(run, points(3), "{}", {}, writer.merge)
    assert not run.results.exists()
    assemble(run, points(3), "{}", {}, merge)
    assert result_of(run) == "((a b) c)"


def test_neighbours_are_merged_where_there_is_time():
    merge = Merge(in_brackets)
    parts = joined([Partials.of([(task, 1, str(task))]) for task in range(7)])
    assert [value for *_, value in merged(parts, merge, 60.0).nodes()] == [
        "((0 1) (2 3))", "(4 5)", "6"
    ]  # fmt: skip
    assert len(merged(parts, merge, -1.0)) == 7


def test_large_farms_are_read_in_windows(tmp_path, points, monkeypatch):
    monkeypatch.setattr(partialfiles, "WINDOW_BYTES", 1000)
    run = rundir.create(tmp_path, "job")
    merge = Merge(in_brackets)
    for start in (0, 1, 2):
        some = {task: str(task) for task in range(start, 60, 3)}
        SegmentWriter(run.segments, merge=merge).seal([a_block(some, merge)])
    copy = shutil.copytree(run.segments, tmp_path / "copy")
    assemble(run, points(61), "{}", {}, merge)
    wanted = canonical({task: str(task) for task in range(60)}, 61, in_brackets)
    assert result_of(run) == wanted
    for path in copy.iterdir():
        shutil.copy(path, run.segments)
    assemble(run, points(61), "{}", {}, merge)
    assert result_of(run) == wanted


def test_segments_of_large_parts_become_few(run, points, monkeypatch):
    """However large they are: of neighbours one part is left."""
    monkeypatch.setattr(segments, "LARGE", 100)
    merge = Merge(operator.add)
    writer = SegmentWriter(run.segments, merge=merge)
    for task in range(100):
        writer.seal([a_block({task: np.full(1000, task)}, merge)])
    sealed = [segment.path.stat().st_size for segment in list_segments(run.segments)]
    assert len(sealed) < 3 * segments.FANOUT
    assert sum(sealed) < 40 * 8000
    assemble(run, points(100), "{}", {}, merge)
    with h5py.File(run.results) as file:
        assert (file["result"][()] == sum(range(100))).all()


def test_large_parts_that_do_not_become_fewer_are_left_as_they_are(run, points, monkeypatch):
    monkeypatch.setattr(segments, "LARGE", 100)
    merge = Merge(operator.add)
    writer = SegmentWriter(run.segments, merge=merge)
    for task in range(0, 40, 2):
        writer.seal([a_block({task: np.full(1000, task)}, merge)])
    assert len(list_segments(run.segments)) == 20
    writer.merge_all()
    assemble(run, points(40), "{}", {}, merge)
    with h5py.File(run.results) as file:
        assert (file["result"][()] == sum(range(0, 40, 2))).all()
        assert file["hpckit/partials/task"][()].tolist() == list(range(0, 40, 2))
