"""One parameter of a job: its type, its default, and how a value of it is read and checked."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, Self, TypeAlias, get_args, get_origin

from pydantic import BaseModel, ConfigDict

from hpckit.errors import SpecError
from hpckit.spec.messages import listed, shown
from hpckit.spec.names import PARAMETERS, is_text

ParamType: TypeAlias = type

TYPES: dict[str, ParamType] = {
    "int": int,
    "float": float,
    "bool": bool,
    "str": str,
    "complex": complex,
    "path": Path,
}

_ALLOWED: dict[ParamType, str] = {
    int: "a whole number of 64 bits, such as 32",
    float: "a number, such as 2.5 or 1e-3",
    bool: "true or false",
    str: "text, of UTF-8 and without NUL",
    complex: "a complex number, such as 1+2j",
    Path: "a path",
}
_TRUTH = {
    "true": True,
    "yes": True,
    "on": True,
    "1": True,
    "false": False,
    "no": False,
    "off": False,
    "0": False,
}


class Param(BaseModel):
    """A parameter: what a job may be swept over.

    Attributes
    ----------
    name
        As in the function's signature or the TOML file.
    type
        One of int, float, bool, str, complex and Path; the choices' type where there are any.
    choices
        The values allowed, all of one type; empty if any value of the type is.
    default
        A value of the type; None where `required`.
    required
        Whether a sweep has to give it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True)

    name: str
    type: ParamType
    choices: tuple[int | float | bool | str | complex, ...] = ()
    default: Any = None
    required: bool = False

    @classmethod
    def annotated(cls, name: str, annotation: Any) -> Self:
        """Make a required parameter from a type annotation.

        Raises
        ------
        SpecError
            For a reserved name, or a type that is not supported.
        """
        if name in PARAMETERS:
            raise SpecError(
                f"the name is reserved, as {listed(PARAMETERS)} are; choose another",
                key=name,
            )
        choices = get_args(annotation) if get_origin(annotation) is Literal else ()
        kind = _common_type(name, choices) if choices else annotation
        if not any(kind is known for known in TYPES.values()):
            raise SpecError(
                f"the type {_type_name(annotation)} is not supported; allowed are"
                " int, float, bool, str, complex, Path and Literal[...] of one of the first five",
                key=name,
            )
        return cls.model_construct(
            name=name, type=kind, choices=tuple(choices), default=None, required=True
        )

    def with_choices(self, choices: Sequence[Any]) -> Self:
        """Return this parameter restricted to some values.

        Raises
        ------
        SpecError
            For no choices, ones of another type, and choices of paths.
        """
        if not choices or self.type is Path:
            raise SpecError(
                "choices are at least one value, of a type other than path", key=self.name
            )
        return self.model_copy(update={"choices": tuple(map(self.check, choices))})

    def with_default(self, default: Any) -> Self:
        """Return this parameter with a default.

        Raises
        ------
        SpecError
            For a default of the wrong type, or one that is not among the choices.
        """
        try:
            value = self.check(default)
        except SpecError as error:
            raise SpecError(f"the default {error.problem}", key=self.name) from None
        return self.model_copy(update={"default": value, "required": False})

    @property
    def allowed(self) -> str:
        """What a value may be, as the messages say it."""
        if self.choices:
            return f"one of {listed(map(_written, self.choices), 'or')}"
        return _ALLOWED[self.type]

    def parse(self, text: str) -> Any:
        """Read one value from the command line or a table's cell.

        Raises
        ------
        SpecError
            If the text is no such value; for a path, if nothing is there.
        """
        try:
            value = _READERS[self.type](text)
        except (ValueError, OverflowError):
            raise self._refused(text) from None
        value = self._chosen(self._within(value))
        return self.existing(value) if self.type is Path else value

    def check(self, value: Any) -> Any:
        """Accept a Python or TOML value of this type: an int for a float, never a bool for an int.

        A path is taken as it is; `existing` looks whether it is there.

        Raises
        ------
        SpecError
            If the value is of another type or not among the choices.
        """
        return self._chosen(self._within(self._converted(value)))

    def existing(self, path: Path) -> Path:
        """Make a path absolute, from the current directory, and see that it is there.

        Raises
        ------
        SpecError
            If there is neither a file nor a directory.
        """
        try:
            absolute = path.expanduser().absolute()
            if absolute.is_file() or absolute.is_dir():
                return absolute
        except (OSError, RuntimeError, ValueError):
            pass
        raise SpecError(
            f"{str(Path.cwd() / path)!r} does not exist; must be the path of a file or a directory",
            key=self.name,
        )

    def _converted(self, value: Any) -> Any:
        exact = type(value)
        if exact is bool and self.type is not bool:
            raise self._refused(value)
        if self.type in (float, complex) and isinstance(value, int | float):
            return self.type(value) if _finite_int(value) else self._fail(value)
        if self.type is Path and isinstance(value, str | os.PathLike):
            return Path(value) if str(value) else self._fail(value)
        if not isinstance(value, self.type):
            raise self._refused(value)
        return value if self.type is Path else self.type(value)

    def _within(self, value: Any) -> Any:
        if self.type is int and not -(2**63) <= value < 2**63:
            raise self._refused(value)
        if self.type in (str, Path) and not is_text(str(value)):
            raise self._refused(value)
        return value

    def _chosen(self, value: Any) -> Any:
        if self.choices and value not in self.choices:
            raise self._refused(value)
        return value

    def _refused(self, value: Any) -> SpecError:
        return SpecError(f"{shown(value)} is not allowed; must be {self.allowed}", key=self.name)

    def _fail(self, value: Any) -> Any:
        raise self._refused(value)


def beside(directory: Path, path: str | Path) -> Path:
    """Let a relative path start at `directory`; one that starts with ``~`` is left as it is."""
    return Path(path) if str(path).startswith("~") else directory / path


def _truth(text: str) -> bool:
    try:
        return _TRUTH[text.strip().lower()]
    except KeyError:
        raise ValueError(text) from None


def _path(text: str) -> Path:
    if not text:
        raise ValueError("empty")
    return Path(text)


_READERS: dict[ParamType, Callable[[str], Any]] = {
    int: int,
    float: float,
    bool: _truth,
    str: str,
    complex: complex,
    Path: _path,
}


def _common_type(name: str, choices: tuple[Any, ...]) -> Any:
    kinds = {type(choice) for choice in choices}
    if len(kinds) != 1:
        raise SpecError(
            f"the choices {listed(map(repr, choices))} are of several types; they must be of one",
            key=name,
        )
    return kinds.pop()


def _type_name(annotation: Any) -> str:
    return annotation.__name__ if type(annotation) is type else str(annotation)


def _written(value: Any) -> str:
    return value if isinstance(value, str) and value.isidentifier() else repr(value)


def _finite_int(value: Any) -> bool:
    return isinstance(value, float) or abs(value) < 2**1023
