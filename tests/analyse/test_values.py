from __future__ import annotations

import json

import numpy as np
import pytest

from hpckit.analyse.values import duration, headline, jsonable, printable, shortened, shown, typed
from hpckit.store.columns import TEXT


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, ""),
        (1.23456789, "1.23457"),
        (1e-12, "1e-12"),
        (float("nan"), "nan"),
        (-float("inf"), "-inf"),
        (12345678901, "12345678901"),
        (True, "True"),
        (1.5 - 2j, "1.5-2j"),
        (complex("nan+1j"), "nan+1j"),
        (np.float32(0.1), "0.1"),
        ("two\nlines \x1b[31m", r"two\nlines \x1b[31m"),
        ("x" * 50, "x" * 31 + "…"),
        ("/a/very/long/path/that/ends/in/melt.lmp", "…long/path/that/ends/in/melt.lmp"),
        (np.array(2.5), "2.5"),
        (np.array([1, 2]), "[1, 2]"),
        (np.arange(12).reshape(3, 4), "3×4: 0 … 11"),
        (np.array([1.0, np.nan, 3.0, 2.0]), "4: 1 … 3, 1 NaN"),
        (np.full(5, np.nan), "5: all NaN"),
        (np.array([3 + 4j] * 4), "4: |z| 5 … 5"),
        (np.array([True, False] * 2), "4: 2 true"),
        (np.array(["a", "b", "c", "d"], object), "4 strings"),
        (np.zeros((0, 3)), "0×3: empty"),
        (np.zeros(0), "0: empty"),
    ],
)
def test_a_value_is_shown_in_one_short_line(value, text):
    assert shown(value) == text


def test_a_text_of_letters_beyond_ascii_stays_as_it_is():
    assert printable("Grüße, 世界 ✓") == "Grüße, 世界 ✓"


def test_a_cut_text_has_the_width():
    assert len(shortened("y" * 100, 10)) == len(shortened("/" + "y" * 100, 10)) == 10


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.0, "0.0 s"), (59.9, "59.9 s"), (59.96, "00:01:00"), (90000, "1-01:00:00")],
)
def test_durations(seconds, text):
    assert duration(seconds) == text


def test_json_keeps_all_digits_and_is_valid():
    value = {"a": np.array([0.1 + 0.2, np.nan, -np.inf]), "z": 1 + 2j, "n": np.int64(3), "x": None}
    text = json.dumps(jsonable(value), allow_nan=False)
    assert json.loads(text) == {
        "a": [0.30000000000000004, "NaN", "-Infinity"],
        "z": {"real": 1.0, "imag": 2.0},
        "n": 3,
        "x": None,
    }


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("the worker was killed", "the worker was killed"),
        ("", ""),
        ("Traceback (most recent call last):\n  File x\n    y\nE: one\ntwo\n  three", "E: one"),
        (
            "Traceback (most recent call last):\n  a\nKeyError: 1\n\nDuring …\n\n"
            "Traceback (most recent call last):\n  b\nValueError: 2",
            "ValueError: 2",
        ),
    ],
)
def test_the_headline_of_an_error(text, line):
    assert headline(text) == line


def test_types():
    assert typed(np.dtype(float), (3, 4)) == "float64 (3, 4)"
    assert typed(TEXT, ()) == "text"
    assert typed(np.dtype(bool), None) == "bool (ragged)"
