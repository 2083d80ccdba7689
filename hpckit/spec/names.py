"""Names that are taken in results.h5 and on the command line, and texts that HDF5 can hold."""

from __future__ import annotations

FARM_VARIABLES = ("task", "task_state", "tasks", "hpckit")
"""What results.h5 of a farm holds beside parameters and results."""

PARAMETERS = ("repeat", "run", *FARM_VARIABLES)
"""What no parameter is called: ``repeat`` is a sweep's own, ``task`` and ``run`` are contexts."""

STEP = "step"
FIELDS = (STEP, "hpckit")
"""What results.h5 of an spmd job holds beside fields and records."""

ATTRIBUTES = (
    *("CLASS", "NAME", "DIMENSION_LIST", "DIMENSION_LABELS", "REFERENCE_LIST"),
    *("dtype", "coordinates", "scale_factor", "add_offset", "missing_value"),
)
"""Attributes that HDF5 and hpckit write, and those for which readers change the values."""

ATTRIBUTE_PREFIXES = ("_", "hpckit")
"""A leading underscore is reserved by netCDF."""


def is_name(text: str) -> bool:
    """Tell whether HDF5 and netCDF take a text as the name of a variable or an attribute."""
    return (
        text.isprintable()
        and "/" not in text
        and text.strip() == text
        and text not in ("", ".", "..")
    )


def is_text(text: str) -> bool:
    """Tell whether HDF5 can hold a text: UTF-8 without NUL."""
    try:
        return "\0" not in text and (text.isascii() or bool(text.encode()))
    except UnicodeEncodeError:
        return False
