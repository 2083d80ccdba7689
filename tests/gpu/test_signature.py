"""Parameters of kernels, and what may be given for them."""

from __future__ import annotations

import numpy as np
import pytest

from hpckit.errors import LaunchError, UsageError
from hpckit.run.gpu.signature import kernels, parameters

SOURCE = """
    // __global__ void no(int a)
    /* __global__ void no_more(double) */
    __device__ double helper(double x) { return x; }
    __global__ void __launch_bounds__(128) scale(const double *__restrict__ x,
                                                 float* y, unsigned long long n, bool up)
    {}
    extern "C" __global__ __launch_bounds__(64, 2) void bare() {}
    __global__ void odd(real a) {}
    __global__ void raw(void *p, const struct cell *cells, size_t n, int8_t c) {}
    __global__ void spelt(long int a, unsigned long long int b, double x[],
                          signed d, short int e) {}
"""


class OnCard:
    """As much of an array on the card as a launch asks for."""

    def __init__(self, dtype, *, gaps=False):
        self.dtype = np.dtype(dtype)
        self.gpudata = self.ptr = 4096
        self.size = 3
        self.flags = type("Flags", (), {"c_contiguous": not gaps})


def test_the_kernels_of_a_source():
    assert kernels(SOURCE) == {"scale", "bare", "odd", "raw", "spelt"}


def test_the_spellings_of_c():
    dtypes = [(p.name, p.dtype.str[1:], p.is_pointer) for p in parameters(SOURCE, "spelt")]
    assert dtypes == [
        ("a", "i8", False),
        ("b", "u8", False),
        ("x", "f8", True),
        ("d", "i4", False),
        ("e", "i2", False),
    ]


def test_types_and_names_are_read():
    x, y, n, up = parameters(SOURCE, "scale")
    assert [(p.name, p.is_pointer, p.dtype) for p in (x, y, n, up)] == [
        ("x", True, np.dtype("f8")),
        ("y", True, np.dtype("f4")),
        ("n", False, np.dtype("u8")),
        ("up", False, np.dtype("?")),
    ]
    assert parameters(SOURCE, "bare") == ()
    p, cells, n, c = parameters(SOURCE, "raw")
    assert (p.dtype, cells.dtype, cells.is_pointer) == (None, None, True)
    assert (n.dtype, c.dtype) == (np.dtype("u8"), np.dtype("i1"))


@pytest.mark.parametrize(
    ("kernel", "told"),
    [
        ("no", "no `__global__ void no"),
        ("helper", "it has bare, odd, raw, scale, spelt"),
        ("odd", "'real a' is of a type that is no number of C's"),
    ],
)
def test_kernels_that_cannot_be_called(kernel, told):
    with pytest.raises(LaunchError, match=told):
        parameters(SOURCE, kernel)


def accepted(index, value):
    return parameters(SOURCE, "scale")[index].accept(value, "scale")


@pytest.mark.parametrize(
    ("index", "value", "packed"),
    [
        (0, OnCard("f8"), 4096),
        (2, 7, np.uint64(7)),
        (2, np.int16(7), np.uint64(7)),
        (2, 2.0, np.uint64(2)),
        (2, 2**64 - 1, np.uint64(2**64 - 1)),
        (3, True, np.bool_(True)),
    ],
)
def test_what_fits_is_packed(index, value, packed):
    got = accepted(index, value)
    assert got == packed
    assert type(got) is type(packed)


@pytest.mark.parametrize(
    ("index", "value", "told"),
    [
        (0, np.ones(3), "an array of the host; it takes a copy of it: gpu.array"),
        (0, OnCard("f4"), "an array of float32; it takes one of float64"),
        (0, OnCard("f8", gaps=True), "an array with gaps"),
        (0, 3.0, "3.0; it takes an array on the card"),
        (2, -1, "-1; it takes a whole number from 0 to 18446744073709551615"),
        (2, 2**64, "a whole number from 0"),
        (2, 1.5, "1.5; it takes a whole number"),
        (2, float("nan"), "nan; it takes a whole number"),
        (2, "7", "'7'; it takes"),
        (3, 2, "2; it takes True or False"),
        (3, None, "None; it takes a number of bool"),
    ],
)
def test_what_does_not_fit_is_refused(index, value, told):
    with pytest.raises(UsageError, match=told):
        accepted(index, value)
