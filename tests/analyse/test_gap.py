from __future__ import annotations

import numpy as np
import pytest

from hpckit.analyse.gap import Gap, distances

NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("a", "b", "distance"),
    [
        (1.0, 1.5, 0.5),
        (NAN, NAN, 0.0),
        (NAN, 1.0, INF),
        (INF, INF, 0.0),
        (INF, -INF, INF),
        (INF, 1.0, INF),
        (3 + 4j, 0j, 5.0),
        (complex(NAN, 1), complex(1, NAN), 0.0),
        (np.float16(60000), np.float16(-60000), 120000.0),
        (np.uint8(1), np.uint8(255), 254.0),
    ],
)
def test_distance(a, b, distance):
    assert distances(np.array([a]), np.array([b]))[0] == [distance]


def test_integers_are_subtracted_exactly():
    top, bottom = np.iinfo(np.int64).max, np.iinfo(np.int64).min
    a, b = np.array([top, top, 2**60]), np.array([bottom, top - 1, 2**60 + 1])
    assert distances(a, b)[0].tolist() == [2.0**64, 1.0, 1.0]


def test_infinities_of_one_sign_are_within_any_tolerance():
    gap = Gap()
    gap.add(np.array([INF, NAN, 0.0]), np.array([INF, NAN, -0.0]), str)
    assert (gap.values, gap.unequal, gap.beyond, gap.max_abs, gap.where) == (3, 0, 0, 0.0, None)


def test_a_tolerance_never_covers_an_infinite_distance():
    gap = Gap(rtol=1.0, atol=1.0)
    gap.add(np.array([INF, NAN]), np.array([1.0, 1.0]), str)
    assert gap.beyond == 2
    assert gap.max_abs == gap.max_rel == INF


def test_tolerances_add_up_and_are_symmetric():
    a, b = np.array([100.0]), np.array([111.0])
    for one, two in ((a, b), (b, a)):
        inside, outside = Gap(rtol=0.05, atol=5.5), Gap(rtol=0.05, atol=5.4)
        inside.add(one, two, str)
        outside.add(one, two, str)
        assert (inside.beyond, outside.beyond) == (0, 1)


def test_the_place_is_that_of_the_largest_difference_of_all_pieces():
    gap = Gap()
    gap.add(np.array([1.0, 2.0]), np.array([1.0, 2.5]), lambda i: f"first {i}")
    gap.add(np.array([[1.0], [9.0]]), np.array([[1.0], [7.0]]), lambda i: f"second {i}")
    gap.add(np.array([1.0]), np.array([1.1]), lambda i: f"third {i}")
    assert (gap.where, gap.max_abs, gap.unequal) == ("second 1", 2.0, 3)


def test_texts_and_bools_are_counted():
    gap = Gap(atol=10.0)
    gap.add(np.array(["a", "b"], object), np.array(["a", "c"], object), str)
    gap.add(np.array([True]), np.array([False]), str)
    assert (gap.unequal, gap.beyond, gap.max_abs, gap.where) == (2, 2, None, "1")
