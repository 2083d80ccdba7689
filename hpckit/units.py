"""Memory and walltime: numbers that read and write themselves as Slurm does.

The forms are those of the options ``--mem`` and ``--time`` in Slurm's sbatch(1), and
beside them the ones that people write: ``4GB``, ``1h30m``.
"""

from __future__ import annotations

import re
from decimal import Decimal
from math import ceil
from typing import TYPE_CHECKING, Any, ClassVar, Self

if TYPE_CHECKING:
    from pydantic import GetCoreSchemaHandler
    from pydantic_core import CoreSchema

KIB = 1024
DAY = 86_400
LONGEST = 10**9  # seconds: beyond any scheduler's limit, and safe in every integer type
LARGEST = 2**62  # bytes

_MEMORY_UNITS = {"K": KIB, "M": KIB**2, "G": KIB**3, "T": KIB**4}
_MEMORY = re.compile(r"(\d{1,18}(?:\.\d{1,9})?)\s*(?:([KMGT])(?:i?B)?)?", re.IGNORECASE | re.ASCII)

_TIME_UNITS = {"d": DAY, "h": 3600, "m": 60, "s": 1}
_SLURM_TIME = re.compile(
    r"(?:(?P<days>\d{1,9})-)?(?P<first>\d{1,9})(?::(?P<second>\d\d?))?(?::(?P<third>\d\d?))?",
    re.ASCII,
)
_HUMAN_TIME = re.compile(
    r"(?=\d)"
    + r"\s*".join(
        rf"(?:(?P<{unit}>\d{{1,9}}(?:\.\d{{1,9}})?)\s*{spelling})?"
        for unit, spelling in (
            ("d", r"d(?:ays?)?"),
            ("h", r"h(?:ours?|rs?)?"),
            ("m", r"m(?:in(?:ute)?s?)?"),
            ("s", r"s(?:ec(?:ond)?s?)?"),
        )
    ),
    re.IGNORECASE | re.ASCII,
)


class _Quantity(int):
    """A whole number of the smallest unit, which prints in Slurm's form."""

    allowed: ClassVar[str]

    def __new__(cls, value: int | str) -> Self:
        """Take a count of the smallest unit, or text in one of the forms allowed."""
        return super().__new__(cls, cls._read(value) if isinstance(value, str) else value)

    @classmethod
    def parse(cls, value: object) -> Self:
        """Read what a user wrote: text, a bare number in Slurm's default unit, or itself.

        Raises
        ------
        ValueError
            Saying what is allowed.
        """
        if isinstance(value, cls):
            return value
        if isinstance(value, int) and not isinstance(value, bool):
            return cls(str(value))
        if isinstance(value, str):
            return cls(value)
        raise cls._refused(value)

    @classmethod
    def _read(cls, text: str) -> int:
        raise NotImplementedError

    @classmethod
    def _refused(cls, value: object) -> ValueError:
        return ValueError(f"{value!r} is not {cls.allowed}")

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self)!r})"

    @classmethod
    def __get_pydantic_core_schema__(cls, _: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """Validate by `parse`; serialise to JSON as Slurm's form."""
        from pydantic_core import core_schema

        return core_schema.no_info_plain_validator_function(
            cls.parse, serialization=core_schema.to_string_ser_schema()
        )


class Memory(_Quantity):
    """An amount of memory in bytes; ``str()`` gives Slurm's form, such as ``4G`` or ``500M``.

    ``Memory(4096)`` is 4096 bytes. Text is a number and a unit (``K``, ``M``, ``G``, ``T``, powers
    of 1024; ``4GB``, ``4 GiB`` and ``1.5G`` too); without a unit it is megabytes, as Slurm has it,
    and `parse` reads a bare number so. Zero asks for all the memory of a node, as in Slurm.

    Raises
    ------
    ValueError
        For text in any other form; the message says what is allowed.
    """

    allowed = "an amount of memory, a number and K, M, G or T such as '500M' or '4G'"

    @classmethod
    def _read(cls, text: str) -> int:
        match = _MEMORY.fullmatch(text.strip())
        if match is None:
            raise cls._refused(text)
        number, unit = match.groups()
        kibibytes = Decimal(number) * (_MEMORY_UNITS[(unit or "M").upper()] // KIB)
        size = ceil(kibibytes) * KIB
        if size > LARGEST:
            raise ValueError(f"{text!r} is too large for {cls.allowed}")
        return size

    def __str__(self) -> str:
        """Slurm's form in the largest unit that divides it; a part of a kilobyte counts whole."""
        count, unit = -(-int(self) // KIB), "K"
        for larger in "MGT":
            if count == 0 or count % KIB:
                break
            count, unit = count // KIB, larger
        return f"{count}{unit}" if count else "0"


class Walltime(_Quantity):
    """A length of time in seconds; ``str()`` gives Slurm's form, such as ``01:30:00``.

    Text is one of Slurm's forms (``minutes``, ``minutes:seconds``, ``hours:minutes:seconds``,
    ``days-hours``, ``days-hours:minutes``, ``days-hours:minutes:seconds``) or ``90m``, ``1h30m``,
    ``2d``. `parse` reads a bare number as minutes, as Slurm does.

    Raises
    ------
    ValueError
        For text in any other form, and for zero; the message says what is allowed.
    """

    allowed = "a walltime such as '30m', '1h30m', '2d', '01:30:00' or '1-12:00:00'"

    @classmethod
    def _read(cls, text: str) -> int:
        seconds = cls._slurm(text.strip())
        if seconds is None:
            seconds = cls._human(text.strip())
        if seconds is None:
            raise cls._refused(text)
        if not 0 < seconds <= LONGEST:
            raise ValueError(f"{text!r} is too {'long' if seconds else 'short'} for {cls.allowed}")
        return seconds

    @staticmethod
    def _slurm(text: str) -> int | None:
        match = _SLURM_TIME.fullmatch(text)
        if match is None:
            return None
        days = match["days"]
        parts = [int(part) for part in match.group("first", "second", "third") if part is not None]
        if days is not None:
            hours, minutes, seconds = (*parts, 0, 0)[:3]
        elif len(parts) == 3:
            hours, minutes, seconds = parts
        else:
            hours, (minutes, seconds) = 0, (*parts, 0)[:2]
        return int(days or 0) * DAY + hours * 3600 + minutes * 60 + seconds

    @staticmethod
    def _human(text: str) -> int | None:
        match = _HUMAN_TIME.fullmatch(text)
        if match is None:
            return None
        total = sum(Decimal(n) * _TIME_UNITS[u] for u, n in match.groupdict().items() if n)
        return ceil(total)

    def __str__(self) -> str:
        """``HH:MM:SS``, or ``D-HH:MM:SS`` from a day on."""
        days, rest = divmod(int(self), DAY)
        clock = f"{rest // 3600:02}:{rest // 60 % 60:02}:{rest % 60:02}"
        return f"{days}-{clock}" if days else clock


def binary(nbytes: float) -> str:
    """Return an amount of bytes for people, such as ``1.5 GiB``."""
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if nbytes < KIB:
            return f"{nbytes:.0f} bytes" if unit == "bytes" else f"{nbytes:.1f} {unit}"
        nbytes /= KIB
    return f"{nbytes:.1f} TiB"
