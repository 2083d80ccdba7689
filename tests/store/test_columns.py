from __future__ import annotations

import enum
import io
import itertools

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from hpckit.store.block import make_block, merged
from hpckit.store.blockfile import BlockFile, block_image
from hpckit.store.columns import (
    TEXT,
    Column,
    from_values,
    joined_dtype,
    masked,
    scattered,
    storable,
)

NUMBERS = ("?", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8", "c8", "c16")
DTYPES = [*map(np.dtype, NUMBERS), TEXT]

text = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=8)
scalars = st.one_of(
    st.booleans(),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(),
    st.complex_numbers(),
    text,
)
arrays = hnp.arrays(
    dtype=st.sampled_from([d for d in DTYPES if d != TEXT]),
    shape=hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=3),
)
texts = hnp.arrays(np.dtype(object), hnp.array_shapes(max_dims=2, max_side=3), elements=text)
mixed = st.lists(st.one_of(st.none(), scalars, arrays, texts), min_size=1, max_size=8)
alike = st.one_of(
    st.sampled_from([st.booleans(), st.floats(), st.complex_numbers(), text]).flatmap(
        lambda kind: st.lists(st.one_of(st.none(), kind), min_size=1, max_size=8)
    ),
    st.sampled_from(DTYPES[:-1]).flatmap(
        lambda dtype: st.lists(
            st.one_of(st.none(), hnp.arrays(dtype, hnp.array_shapes(min_side=0, max_side=3))),
            min_size=1,
            max_size=8,
        )
    ),
)


def block_of(values, start=0):
    rows = [{} if value is None else {"v": storable("v", value)} for value in values]
    count = len(values)
    indices = range(start, start + count)
    return make_block(indices, rows, {}, np.zeros(count), np.zeros(count), worker=7)


def through_a_file(block):
    with h5py.File(io.BytesIO(bytes(block_image(block))), "r") as file:
        source = BlockFile(file)
        return source.read(0, len(source.task))


def same(one, two):
    if one is None or two is None:
        return one is two
    if one.dtype != two.dtype or one.shape != two.shape:
        return False
    return one.tolist() == two.tolist() if one.dtype == TEXT else np.array_equal(one, two, True)


def same_column(one, two):
    return one.field == two.field and all(map(same, one.rows(), two.rows()))


def as_row(value):
    """The row that is expected back from a single value."""
    if isinstance(value, str):
        row = np.empty((), object)
        row[()] = value
        return row
    return np.asarray(value)


@settings(deadline=None)
@given(alike)
def test_values_of_one_type_come_back_as_they_were(values):
    back = through_a_file(block_of(values)).fields
    if all(value is None for value in values):
        assert back == {}
        return
    rows = back["v"].rows()
    expected = [None if value is None else as_row(value) for value in values]
    assert all(map(same, rows, expected))


@settings(deadline=None)
@given(mixed)
def test_a_mixture_survives_the_file(values):
    before = block_of(values)
    after = through_a_file(before)
    assert before.fields.keys() == after.fields.keys()
    for name, column in before.fields.items():
        assert same_column(column, after.fields[name])
        assert column.present.tolist() == [value is not None for value in values]


@settings(deadline=None)
@given(mixed, st.data())
def test_batches_and_their_order_do_not_matter(values, data):
    cuts = data.draw(st.lists(st.integers(0, len(values)), max_size=3).map(sorted))
    bounds = [0, *cuts, len(values)]
    blocks = [
        through_a_file(block_of(values[a:b], a)) for a, b in itertools.pairwise(bounds) if a < b
    ]
    shuffled = data.draw(st.permutations(blocks))
    whole, joined = block_of(values), merged(shuffled)
    assert joined.task.tolist() == list(range(len(values)))
    assert whole.fields.keys() == joined.fields.keys()
    for name, column in whole.fields.items():
        assert same_column(column, joined.fields[name])


BEYOND = 2**53 + 1


@pytest.mark.parametrize(
    ("values", "texts"),
    [
        ([BEYOND, 0.5, 1], [str(BEYOND), "0.5", "1"]),
        ([BEYOND, 0.5, "x"], [str(BEYOND), "0.5", "x"]),
        ([-BEYOND, 2j, True], [str(-BEYOND), "2j", "1"]),
        ([np.uint64(2**63 + 1), -1, 2], [str(2**63 + 1), "-1", "2"]),
        ([2**53, -0.0, 2.0**60], [str(2**53), "-0", repr(2.0**60)]),
    ],
)
def test_large_integers_keep_their_digits_in_any_order(values, texts):
    for order in itertools.permutations(range(3)):
        first, second, third = (through_a_file(block_of([values[i]], i)) for i in order)
        for joined in (merged([merged([first, second]), third]), merged([third, second, first])):
            assert joined.fields["v"].values.tolist() == texts


def test_an_absent_integer_is_not_a_large_one():
    joined = merged([through_a_file(block_of([3, None])), block_of([0.5], 2)]).fields["v"]
    assert joined.values.dtype == np.float64
    assert joined.values[[0, 2]].tolist() == [3.0, 0.5]


def test_the_large_integers_of_ragged_rows():
    rows = [np.array([BEYOND]), np.array([0.5, 1.0])]
    column = merged([through_a_file(block_of([row], i)) for i, row in enumerate(rows)]).fields["v"]
    assert [row.tolist() for row in column.rows()] == [[str(BEYOND)], ["0.5", "1"]]


@pytest.mark.parametrize("first", DTYPES, ids=str)
def test_joined_types_do_not_depend_on_the_order(first):
    for pair in itertools.product(DTYPES, repeat=2):
        found = set()
        for a, b, c in itertools.permutations((first, *pair)):
            found.add(joined_dtype(joined_dtype(a, b), c))
            found.add(joined_dtype(a, joined_dtype(b, c)))
        assert len(found) == 1, pair


def test_numbers_among_texts_are_written_the_same_in_any_batch():
    values = [1, 2.0, 0.5, "a", 3j, True, 1e300, float("nan")]
    expected = ["1", "2", "0.5", "a", "3j", "1", "1e+300", "nan"]
    assert from_values(values).values.tolist() == expected
    for batches in itertools.permutations([block_of(values[a : a + 2], a) for a in (0, 2, 4, 6)]):
        assert merged(batches).fields["v"].values.tolist() == expected


def test_a_large_integer_among_texts_keeps_its_digits():
    assert from_values([2**53 + 1, "none"]).values.tolist() == ["9007199254740993", "none"]


def test_rows_of_several_shapes_keep_them():
    values = [np.zeros((2, 3)), np.arange(4.0), np.zeros((0, 5)), None, 7.5]
    column = through_a_file(block_of(values)).fields["v"]
    rows = column.rows()
    assert [None if r is None else r.shape for r in rows] == [(2, 3), (4,), (0, 5), None, (1,)]
    assert rows[1].tolist() == [0, 1, 2, 3]
    assert rows[4].tolist() == [7.5]


def test_a_small_integer_with_absent_rows_keeps_type_and_extremes():
    values = [np.uint8(255), None, np.uint8(0)]
    column = through_a_file(block_of(values)).fields["v"]
    assert column.values.dtype == np.uint8
    assert column.present.tolist() == [True, False, True]
    assert column.values[[0, 2]].tolist() == [255, 0]


def test_the_value_that_stands_for_absent_is_still_a_value():
    lowest = np.iinfo(np.int64).min
    column = through_a_file(block_of([lowest, None, 3])).fields["v"]
    assert column.present.tolist() == [True, False, True]
    assert column.values[0] == lowest


def test_a_field_that_nobody_returned_has_no_type():
    assert from_values([None, None]) is None
    joined = merged([block_of([None, None]), block_of([1, 2], 2)]).fields["v"]
    assert joined.values.dtype == np.int64
    assert joined.present.tolist() == [False, False, True, True]


def test_an_array_is_copied_before_the_task_uses_it_again():
    buffer = np.arange(3.0)
    kept = storable("v", buffer)
    buffer[:] = 9
    assert kept.tolist() == [0, 1, 2]


def test_foreign_byte_order_becomes_native():
    kept = storable("v", np.arange(3, dtype=">i4"))
    assert kept.dtype == np.dtype("=i4")
    assert kept.tolist() == [0, 1, 2]


class Word(enum.StrEnum):
    ONE = "one"


@pytest.mark.parametrize(
    ("value", "kept"),
    [
        (Word.ONE, "one"),
        (np.str_("x"), "x"),
        (b"bytes", "bytes"),
        (np.float32(2.5), np.float32(2.5)),
        (np.bool_(True), np.bool_(True)),
    ],
)
def test_relatives_of_plain_types_are_taken(value, kept):
    found = storable("v", value)
    assert found == kept
    assert type(found) is type(kept)


@pytest.mark.parametrize(
    "texts", [["a", "bc"], np.array(["a", "bc"]), np.array(["a", "bc"], object)]
)
def test_texts_come_as_a_list_or_any_array(texts):
    assert storable("v", texts).tolist() == ["a", "bc"]


@pytest.mark.parametrize(
    "value",
    [
        ...,
        {"a": 1},
        [1, [2, 3]],
        [None, 1.0],
        2**63,
        -(2**63) - 1,
        np.longdouble(1),
        np.datetime64("2020-01-01"),
        np.ma.masked_array([1, 2], [True, False]),
        "zero\0byte",
        "half \ud800",
        ["fine", "half \udc80"],
        b"\xff",
    ],
    ids=repr,
)
def test_what_hdf5_cannot_hold_is_refused_with_the_name(value):
    with pytest.raises(TypeError, match=r"^field 'energy': ") as raised:
        storable("energy", value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", " a", "a ", "a\nb", "a\0", "\ud800"])
def test_a_name_that_no_variable_can_have_is_refused(name):
    with pytest.raises(TypeError, match="a name must"):
        storable(name, 1.0)


def test_any_traceback_can_be_kept():
    block = make_block([0], [None], {0: "zero \0 and \udc80"}, np.zeros(1), np.zeros(1), worker=1)
    assert through_a_file(block).details["error"].values.tolist() == ["zero \\0 and \\udc80"]


def test_scattered_and_masked_rows():
    ragged = from_values([np.arange(2), np.arange(3), np.arange(1)])
    kept = masked(ragged, np.array([True, False, True]))
    assert [None if r is None else r.tolist() for r in kept.rows()] == [[0, 1], None, [0]]
    dense = from_values([np.array([7, 8, 9])])
    field = kept.field.joined(dense.field)
    whole = scattered(5, field, [(np.array([4, 3, 0]), kept), (np.array([2]), dense)])
    rows = [None if r is None else r.tolist() for r in whole.rows()]
    assert rows == [[0], None, [7, 8, 9], None, [0, 1]]


def test_columns_of_no_rows():
    empty = Column(np.zeros((0, 3)), np.zeros(0, bool))
    assert len(empty) == 0
    assert empty.field.shape == (3,)
