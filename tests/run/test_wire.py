"""What drivers and workers write each other: it reads back as it was, or is refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from hpckit.errors import (
    BusyError,
    HpckitError,
    Interrupted,
    LaunchError,
    SpecError,
    StoreError,
    UsageError,
)
from hpckit.run.batch import FarmSpec, Outcome
from hpckit.run.celery.wire import (
    Begun,
    Call,
    Died,
    Refused,
    WireError,
    decode_call,
    decode_reply,
    encode_call,
    encode_reply,
)
from hpckit.run.usage import Used
from hpckit.store.block import make_block
from hpckit.store.columns import storable

ID = "0123456789abcdef.12.3"

texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))
dtypes = st.sampled_from([*"?bBhHiIqQefdFD", ">i4", ">f8"]).map(np.dtype)
numbers = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(),
    st.complex_numbers(),
)
arrays = dtypes.flatmap(lambda dtype: hnp.arrays(dtype, hnp.array_shapes(min_dims=0, min_side=0)))
text_arrays = st.lists(texts, max_size=4)
values = st.one_of(numbers, texts, arrays, text_arrays)
fields = st.lists(st.sampled_from(["a", "b c", "größe"]), unique=True).flatmap(
    lambda names: st.fixed_dictionaries(dict.fromkeys(names, values))
)
uniform = st.one_of(
    st.floats().map(lambda value: {"x": value}),
    st.integers(0, 5).map(lambda value: {"x": value}),
    texts.map(lambda value: {"x": value}),
)


@st.composite
def blocks(draw):
    count = draw(st.integers(1, 6))
    kind = draw(st.sampled_from([fields, uniform]))
    results = [draw(st.one_of(st.none(), kind)) for _ in range(count)]
    packed = [r and {name: storable(name, value) for name, value in r.items()} for r in results]
    errors = {i: "it was\n\0 wrong" for i, result in enumerate(packed) if result is None}
    indices = sorted(draw(st.sets(st.integers(0, 2**62), min_size=count, max_size=count)))
    times = np.array(draw(st.lists(st.floats(0, 1e10), min_size=count, max_size=count)))
    return make_block(indices, packed, errors, times, times, draw(st.integers(1, 2**22)))


troubles = st.builds(
    lambda kind, text: kind(text),
    st.sampled_from(
        [HpckitError, UsageError, SpecError, BusyError, StoreError, LaunchError, Interrupted]
    ),
    texts,
)
used = st.builds(
    Used,
    st.integers(1, 2**22),
    st.floats(0, 1e9),
    st.integers(0, 2**50),
    st.integers(0, 2**50),
)
outcomes = st.builds(Outcome, st.none() | blocks(), st.none() | troubles, used)
ranges = st.builds(
    lambda start, count, step: range(start, start + count * step, step),
    st.integers(0, 2**50),
    st.integers(1, 1000),
    st.integers(1, 50),
)
calls = st.builds(
    Call,
    session=st.just("0123456789abcdef"),
    number=st.integers(0, 10**9),
    turn=st.integers(0, 10**9),
    spec=st.builds(
        FarmSpec,
        run=st.just(Path("/runs/größe-1")),
        job_file=st.just("job.py"),
        source=st.just(Path("/home/jobs/größe.py")),
        assignments=st.lists(st.tuples(texts, texts), max_size=3).map(tuple),
        has_table=st.booleans(),
        seed=st.integers(0, 2**63),
    ),
    indices=ranges | st.lists(st.integers(0, 2**62), min_size=1, max_size=20),
    attempt=st.integers(1, 5),
    directory=texts,
    threads=st.just({}) | st.just({"OMP_NUM_THREADS": "4,2", "MKL_NUM_THREADS": "1"}),
)


def same_array(one, two):
    """Tell whether two arrays are the same to the bit."""
    if one.dtype == object:
        return one.shape == two.shape and one.tolist() == two.tolist()
    return (one.dtype, one.shape, one.tobytes()) == (two.dtype, two.shape, two.tobytes())


def assert_same_columns(ones, twos):
    assert list(ones) == list(twos)
    for name, one in ones.items():
        two = twos[name]
        assert same_array(one.values, two.values)
        assert same_array(one.present, two.present)
        assert (one.shapes is None) == (two.shapes is None)
        assert one.shapes is None or same_array(one.shapes, two.shapes)


@settings(deadline=None)
@given(outcomes)
def test_outcomes_read_back(outcome):
    session, number, turn, back = decode_reply(encode_reply(ID, outcome))
    assert (session, number, turn) == ("0123456789abcdef", 12, 3)
    assert back.used == outcome.used
    assert (type(back.trouble), str(back.trouble)) == (type(outcome.trouble), str(outcome.trouble))
    if outcome.block is None:
        assert back.block is None
        return
    assert same_array(back.block.task, outcome.block.task)
    assert same_array(back.block.state, outcome.block.state)
    assert_same_columns(outcome.block.details, back.block.details)
    assert_same_columns(outcome.block.fields, back.block.fields)
    # The driver adds to them.
    back.block.details["attempts"].values[:] += 1


@settings(deadline=None)
@given(calls)
def test_calls_read_back(call):
    back = decode_call(encode_call(call))
    assert back == call
    assert type(back.indices) is type(call.indices)


@pytest.mark.parametrize(
    "reply", [Begun("node-1"), Died("was killed", None), Died("x", 2**40), Refused("no")]
)
def test_other_replies_read_back(reply):
    assert decode_reply(encode_reply(ID, reply))[3] == reply


def test_an_error_of_an_unknown_class_is_that_of_its_base():
    class Special(LaunchError):
        pass

    back = decode_reply(encode_reply(ID, Outcome(None, Special("why"))))[3]
    assert type(back.trouble) is LaunchError
    assert str(back.trouble) == "why"


def a_message():
    rows = [{"x": 1.5, "t": "text", "r": np.arange(n)} for n in range(3)]
    block = make_block(range(3), rows, {}, np.array([0.5, 1.5, 2.5]), np.array([0.1, 0.2, 0.3]), 7)
    return json.loads(encode_reply(ID, Outcome(block, LaunchError("why"), Used(1, 1.0, 1, 1), 24)))


def test_the_message_that_others_are_changed_from_is_good():
    assert isinstance(decode_reply(json.dumps(a_message()).encode())[3], Outcome)


def places(raw, path=()):
    """Yield where something stands in a JSON value."""
    yield path
    pairs = raw.items() if isinstance(raw, dict) else enumerate(raw) if type(raw) is list else ()
    for key, value in pairs:
        yield from places(value, (*path, key))


anything = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text()
    | st.sampled_from(["<i8", "|b1", "AAAA", "all", "text"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)


@settings(deadline=None, max_examples=300)
@given(st.data())
def test_whatever_stands_in_a_message_it_is_read_or_refused(data):
    raw = a_message()
    *path, last = data.draw(st.sampled_from([place for place in places(raw) if place]))
    inner = raw
    for key in path:
        inner = inner[key]
    inner[last] = data.draw(anything)
    try:
        reply = decode_reply(json.dumps(raw).encode())[3]
    except WireError:
        return
    block = reply.block
    for column in () if block is None else (*block.details.values(), *block.fields.values()):
        assert len(column.rows()) == len(block)


FIELDS = ("outcome", "block", "fields")
DETAILS = ("outcome", "block", "details")


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (("call",), "0123456789abcdef.1"),
        (("call",), None),
        (("died",), {}),
        (("outcome",), []),
        (("outcome", "more"), 1),
        (("outcome", "trouble"), ["SystemExit", "why"]),
        (("outcome", "trouble"), ["LaunchError"]),
        (("outcome", "used", "pid"), "1"),
        (("outcome", "used", "more"), 1),
        (("outcome", "used", "cpu_seconds"), True),
        (("outcome", "block", "task", "dtype"), "<f8"),
        (("outcome", "block", "task", "dtype"), "|O"),
        (("outcome", "block", "task", "shape"), [4]),
        (("outcome", "block", "task", "shape"), [3.0]),
        (("outcome", "block", "task", "shape"), [-3]),
        (("outcome", "block", "task", "data"), "AAAA"),
        (("outcome", "block", "task", "data"), "AAA\n"),
        (("outcome", "block", "task", "data"), 3),
        (("outcome", "block", "state", "all"), "CQ=="),
        ((*DETAILS, "duration"), None),
        ((*DETAILS, "worker", "values", "dtype"), "<i8"),
        ((*FIELDS, "x", "values", "shape"), [2**62]),
        ((*FIELDS, "x", "values", "dtype"), "V8"),
        ((*FIELDS, "x", "present"), False),
        ((*FIELDS, "t", "values", "text"), ["a", "b", 3]),
        ((*FIELDS, "t", "values", "text"), ["a", "b"]),
        ((*FIELDS, "t", "values", "text"), ["a", "b", "\0"]),
        ((*FIELDS, "t", "values", "text"), ["a", "\ud800", "\udc00"]),
        ((*FIELDS, "r", "values", "shape"), [4]),
        ((*FIELDS, "r", "values", "shape"), [1, 3]),
        ((*FIELDS, "r", "shapes"), 7),
        ((*FIELDS, "r", "present"), {"dtype": "|b1", "shape": [3], "data": "AAEB"}),
        ((*FIELDS, "r", "present"), {"dtype": "|b1", "shape": [3], "data": "AQEC"}),
        ((*FIELDS, "a/b"), {}),
        ((*FIELDS, ""), {}),
    ],
)
def test_broken_messages_are_refused(place, value):
    raw = a_message()
    *path, last = place
    inner = raw
    for key in path:
        inner = inner[key]
    inner[last] = value
    with pytest.raises(WireError):
        decode_reply(json.dumps(raw).encode())


def shapes_of(*rows):
    from hpckit.run.celery.wire_arrays import array_to

    return array_to(np.array(rows, np.int64))


@pytest.mark.parametrize(
    "shapes",
    [
        shapes_of([0], [1], [3]),
        shapes_of([0], [5], [-2]),
        shapes_of([1], [-1], [2]),
        # Their product is 3 in 64 bits.
        shapes_of([0, 1], [2**32 + 1, 2**63 - 2**32 + 1], [2, 1]),
        shapes_of([], [], []),
    ],
)
def test_shapes_that_do_not_fit_their_values_are_refused(shapes):
    raw = a_message()
    raw["outcome"]["block"]["fields"]["r"]["shapes"] = shapes
    with pytest.raises(WireError, match="shapes"):
        decode_reply(json.dumps(raw).encode())


@pytest.mark.parametrize(
    "data",
    [b"", b"\x80\x04N.", b"[]", b"{}", b'{"call": NaN}', b"[" * 100_000, b'"\xff"'],
)
def test_what_is_no_message_is_refused(data):
    for decode in (decode_reply, decode_call):
        with pytest.raises(WireError):
            decode(data)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("format", 99),
        ("call", "x.1.1"),
        ("spec", {}),
        ("attempt", 0),
        ("attempt", True),
        ("attempt", "1"),
        ("indices", {"range": [0, 10, 0]}),
        ("indices", {"range": [0, 0, 1]}),
        ("indices", {"range": [-5, 5, 1]}),
        ("indices", {"range": [0, 2**60, 1]}),
        ("indices", {"range": [0, 2**70, 1]}),
        ("indices", {"range": [0, 10]}),
        ("indices", {"range": [0, 10.5, 1]}),
        ("indices", {"list": {"dtype": "<f8", "shape": [1], "data": "AAAAAAAAAAA="}}),
        ("directory", 1),
        ("threads", {"LD_PRELOAD": "1"}),
        ("threads", {"OMP_NUM_THREADS": "x"}),
        ("threads", {"OMP_NUM_THREADS": 1}),
    ],
)
def test_broken_calls_are_refused(key, value):
    spec = FarmSpec(Path("/r"), "job.py", Path("/j.py"), (("n", "1"),), False, 1)
    call = Call("0123456789abcdef", 1, 0, spec, range(3), 1, "/", {})
    raw = json.loads(encode_call(call))
    assert decode_call(json.dumps(raw)) == call
    raw[key] = value
    with pytest.raises(WireError):
        decode_call(json.dumps(raw))
