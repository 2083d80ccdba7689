"""Values that are merged: what they may be, and that they come back as they were."""

from __future__ import annotations

from collections import Counter, OrderedDict, defaultdict

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from hpckit.store.partials import Partials, joined
from hpckit.store.reducible import normal
from hpckit.store.taking_apart import put_together, taken_apart

TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=6)
INTEGERS = st.integers(-(2**63), 2**63 - 1)
FLOATS = st.floats(allow_nan=False)
COMPLEX = st.complex_numbers(allow_nan=False)
SINGLES = st.floats(width=32, allow_nan=False).map(np.float32)
NUMBERS = st.one_of(
    st.booleans(), INTEGERS, FLOATS, COMPLEX, SINGLES, st.integers(0, 255).map(np.uint8)
)
ARRAYS = st.sampled_from(["?", "i1", "u8", "f2", "f4", "f8", "c16"]).flatmap(
    lambda dtype: hnp.arrays(
        dtype,
        hnp.array_shapes(min_side=0, max_dims=3, max_side=3),
        elements={"allow_nan": False} if dtype[0] in "fc" else None,
    )
)
TEXTS = st.lists(TEXT, max_size=4).map(lambda texts: np.array(texts, object))
KEYS = st.one_of(st.just(TEXT), st.just(INTEGERS))
TABLES = KEYS.flatmap(
    lambda keys: st.one_of(
        st.dictionaries(keys, NUMBERS, max_size=5),
        st.dictionaries(keys, TEXT, max_size=5),
        st.dictionaries(keys, st.integers(-5, 5), max_size=5).map(Counter),
    )
)
NAMES = st.sampled_from(["a", "b", "long name", "ü"])
FIELDS = st.dictionaries(NAMES, st.one_of(NUMBERS, TEXT, ARRAYS, TABLES), max_size=4)
VALUES = st.one_of(st.none(), NUMBERS, TEXT, ARRAYS, TEXTS, TABLES, FIELDS)


def assert_same(one, two):
    """Compare types, orders and bits."""
    assert type(one) is type(two)
    if isinstance(one, dict):
        assert list(one) == list(two)
        assert list(map(type, one)) == list(map(type, two))
        for key in one:
            assert_same(one[key], two[key])
    elif isinstance(one, np.ndarray):
        assert (one.dtype, one.shape) == (two.dtype, two.shape)
        assert one.tolist() == two.tolist()
        assert one.dtype == object or one.tobytes() == two.tobytes()
    else:
        assert repr(one) == repr(two)


@given(VALUES)
def test_a_value_comes_back_as_it_was(value):
    value = normal(value, copy=True)
    assert_same(put_together(*taken_apart(value)), value)


@given(st.lists(VALUES, min_size=1, max_size=8), st.randoms())
def test_many_values_come_back_from_one_store(values, random):
    values = [normal(value, copy=True) for value in values]
    parts = [Partials.of([(i, 1, value)]) for i, value in enumerate(values)]
    random.shuffle(parts)
    whole = joined([*parts, *random.sample(parts, len(parts) // 2)])
    assert whole.task.tolist() == list(range(len(values)))
    for (_, span, found), value in zip(whole.nodes(), values, strict=True):
        assert span == 1
        assert_same(found, value)


def test_what_may_change_is_copied():
    array, counts = np.arange(3), Counter("aab")
    nested = {"x": array, "words": counts}
    copies = [normal(value, copy=True) for value in (array, counts, nested)]
    array[:] = 9
    counts.clear()
    assert copies[0].tolist() == [0, 1, 2]
    assert copies[1] == Counter("aab")
    assert copies[2]["x"].tolist() == [0, 1, 2]
    assert copies[2]["words"] == Counter("aab")
    assert normal(counts, copy=False) is counts


def test_keys_of_numpy_become_plain():
    found = normal(dict(zip(*np.unique([3, 1, 3], return_counts=True), strict=True)), copy=True)
    assert {type(key) for key in found} == {int}
    assert found == {1: 1, 3: 2}


@pytest.mark.parametrize(
    ("value", "told"),
    [
        ([1, 2], "a list cannot be merged and stored: return numbers, strings, NumPy arrays"),
        ({1, 2}, "a set cannot be merged"),
        (defaultdict(int, a=1), "a defaultdict cannot be merged"),
        (OrderedDict(a=1), "a OrderedDict cannot be merged"),
        (2**63, "does not fit into 64 bits"),
        (Counter({"a": 2**63}), "does not fit into 64 bits"),
        ({2**63: 1}, "does not fit into 64 bits"),
        ("a\0", "cannot be stored"),
        ({"a\0": 1}, "neither a zero byte"),
        ({"\ud800": 1}, "half a surrogate pair"),
        ({"a": 1, 2: 1}, "a dict whose keys are int, str cannot be stored"),
        ({(1, 2): 1}, "a dict whose keys are tuple cannot be stored"),
        ({True: 1}, "a dict whose keys are bool cannot be stored"),
        ({"a": None}, "None among its values"),
        ({"a": [1]}, "'a': a list cannot be merged"),
        ({"a/b": np.zeros(2)}, "'a/b': a name must be printable"),
        ({1: np.zeros(2)}, "the keys of a dict of arrays or dicts must be strings"),
        ({"a": {"b": np.zeros(2)}}, "'a': dicts within a dict must be of numbers alone"),
        ({"a": {"b": {"c": 1}}}, "'a': 'b': dicts within dicts"),
        (Counter({"a": "b", "c": 1}), "a Counter of anything but numbers"),
        (np.ma.masked_array([1]), "a masked array cannot be stored"),
        (np.array([object()]), "cannot be stored"),
        (np.zeros(1, np.longdouble), "cannot be stored"),
    ],
)
def test_what_cannot_be_stored_is_refused(value, told):
    for copy in (True, False):
        with pytest.raises(TypeError, match=told):
            normal(value, copy=copy)


def test_damage_is_noticed():
    form, pools = taken_apart({"a": 1, "b": 2})
    pools["int64"] = pools["int64"][:-1]
    with pytest.raises(ValueError, match="does not fit"):
        put_together(form, pools)
    form, pools = taken_apart(np.arange(3))
    pools["int64"] = np.arange(4)
    with pytest.raises(ValueError, match="does not fit"):
        put_together(form, pools)
