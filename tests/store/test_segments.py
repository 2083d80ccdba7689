from __future__ import annotations

import collections
import math

import numpy as np
import pytest

from hpckit.errors import StoreError
from hpckit.store import segments as module
from hpckit.store.block import TaskState, merged
from hpckit.store.results import assemble, task_states
from hpckit.store.segments import (
    FANOUT,
    Segment,
    SegmentWriter,
    list_segments,
    remove_half_written,
    set_aside_damaged,
)


def held(run):
    """How often each task stands in the segments."""
    found = collections.Counter()
    for segment in list_segments(run.segments):
        found.update(module._read(segment).task.tolist())
    return found


@pytest.mark.parametrize("seals", [1, 7, 8, 9, 64, 100])
def test_files_stay_few_and_hold_each_task_once(run, block, seals):
    writer = SegmentWriter(run.segments)
    most = 0
    for start in range(0, 3 * seals, 3):
        writer.seal([block({start + i: {"x": float(start + i)} for i in range(3)})])
        most = max(most, len(list_segments(run.segments)))
    assert held(run) == dict.fromkeys(range(3 * seals), 1)
    assert most <= (FANOUT - 1) * (1 + math.log(max(seals, 1), FANOUT))
    assert {path.suffix for path in run.segments.iterdir()} == {".h5"}


def test_values_survive_the_merges(run, block, points):
    writer = SegmentWriter(run.segments)
    for i in range(70):
        writer.seal([block({i: {"x": i * 0.5, "s": f"t{i}", "r": np.arange(i % 4)}})])
    rows = {}
    for segment in list_segments(run.segments):
        part = module._read(segment)
        columns = [part.fields[name].rows() for name in ("x", "s", "r")]
        for task, x, s, r in zip(part.task.tolist(), *columns, strict=True):
            rows[task] = (float(x), s.item(), r.tolist())
    assert rows == {i: (i * 0.5, f"t{i}", list(range(i % 4))) for i in range(70)}


def test_large_segments_are_left_alone_and_the_others_merged(run, block, monkeypatch):
    monkeypatch.setattr(module, "LARGE", 60_000)
    writer = SegmentWriter(run.segments)
    burst, mixed = FANOUT, 2 * FANOUT
    for i in range(burst + mixed):
        size = 10_000 if i < burst or i % 2 else 1
        writer.seal([block({i: {"x": np.zeros(size)}})])
    segments = list_segments(run.segments)
    assert sorted(segment.level for segment in segments) == [0] * (burst + mixed // 2) + [1]
    assert held(run) == dict.fromkeys(range(burst + mixed), 1)


def test_many_writers_share_a_folder(run, block):
    writers = [SegmentWriter(run.segments) for _ in range(3)]
    for i in range(30):
        writers[i % 3].seal([block({i: {"x": float(i)}})])
    assert held(run) == dict.fromkeys(range(30), 1)


def test_a_finished_result_wins_over_a_failed_one_in_either_order(block):
    failed, done = block({3: "boom", 1: "boom"}), block({3: {"x": 3.0}, 2: {"x": 2.0}})
    for blocks in ([failed, done], [done, failed]):
        joined = merged(blocks)
        assert joined.task.tolist() == [1, 2, 3]
        assert joined.state.tolist() == [TaskState.FAILED, TaskState.DONE, TaskState.DONE]
        assert joined.fields["x"].present.tolist() == [False, True, True]
        assert joined.fields["x"].values[1:].tolist() == [2.0, 3.0]


def test_the_last_of_two_failures_is_kept(block):
    joined = merged([block({0: "first"}), block({0: "second"})])
    assert joined.details["error"].values.tolist() == ["second"]


def test_a_block_in_any_order_is_sorted(block):
    joined = merged([block({5: {"x": 5.0}, 2: {"x": 2.0}})])
    assert joined.task.tolist() == [2, 5]
    assert joined.fields["x"].values.tolist() == [2.0, 5.0]


def test_half_written_files_are_ignored_and_removed(run, block):
    SegmentWriter(run.segments).seal([block({0: {"x": 1.0}})])
    [whole] = list_segments(run.segments)
    half = run.segments / f".{whole.path.name}.abc.tmp"
    half.write_bytes(whole.path.read_bytes()[:100])
    assert task_states(run, 2).tolist() == [TaskState.DONE, TaskState.MISSING]
    assert [segment.path for segment in list_segments(run.segments)] == [whole.path]
    remove_half_written(run.segments)
    assert list(run.segments.iterdir()) == [whole.path]


@pytest.mark.parametrize("damage", ["truncated", "empty", "one bit"])
def test_a_damaged_segment_is_set_aside(run, block, damage):
    writer = SegmentWriter(run.segments)
    writer.seal([block({0: {"x": 1.0}})])
    writer.seal([block({1: {"x": 2.0}})])
    first = list_segments(run.segments)[0].path
    content = bytearray(first.read_bytes())
    if damage == "one bit":
        content[len(content) // 2] ^= 4
    first.write_bytes({"truncated": content[:-1], "empty": b"", "one bit": content}[damage])
    [aside] = set_aside_damaged(run.segments)
    assert aside.name == first.name.replace(".h5", ".damaged")
    assert aside.is_file()
    assert task_states(run, 2).tolist() == [TaskState.MISSING, TaskState.DONE]
    assert set_aside_damaged(run.segments) == []


def test_a_segment_that_is_no_hdf5_is_named_in_one_line(run, points):
    path = run.segments / "w00000000-0-000001-00000000.h5"
    path.write_bytes(b"not a segment")
    with pytest.raises(StoreError, match="does not read back") as raised:
        assemble(run, points(2), "{}", {})
    assert str(raised.value).startswith(str(path))
    assert "\n" not in str(raised.value)
    assert path.is_file()


def test_a_segment_of_another_farm_is_refused(run, block, points):
    SegmentWriter(run.segments).seal([block({7: {"x": 1.0}})])
    with pytest.raises(StoreError, match="holds task 7, but the farm has 3 tasks"):
        assemble(run, points(3), "{}", {})


def test_numbers_beyond_six_digits_are_still_segments(run, block):
    writer = SegmentWriter(run.segments)
    writer.number = 999_999
    writer.seal([block({0: {"x": 1.0}})])
    assert [segment.number for segment in list_segments(run.segments)] == [1_000_000]


def test_other_files_are_no_segments(run):
    for name in ("rank-00000.h5", "w1-0-000001-0000000g.h5", "w1-0-000001.h5", "notes.txt"):
        path = run.segments / name
        path.touch()
        assert Segment.named(path) is None
    assert list_segments(run.segments) == []
