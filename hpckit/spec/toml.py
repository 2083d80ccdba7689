"""The TOML job file: a command with its parameters, resources and results."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

from pydantic import ValidationError

from hpckit.errors import SpecError
from hpckit.spec.attributes import Attrs, checked_attrs
from hpckit.spec.command import (
    BUILT_IN,
    Command,
    CsvPicker,
    Hdf5Picker,
    Picker,
    RegexPicker,
    located,
    placeholders,
)
from hpckit.spec.interpreters import check_no_code
from hpckit.spec.job import Job, checked_image, checked_name, checked_seed
from hpckit.spec.messages import listed, refused, shown, suggestion, unknown
from hpckit.spec.names import PARAMETERS
from hpckit.spec.params import TYPES, Param, beside
from hpckit.spec.policy import Policy
from hpckit.spec.resources import Resources
from hpckit.spec.rules import TaskRules
from hpckit.spec.tomltext import parse_toml

KEYS = (
    "command",
    "name",
    "doc",
    "seed",
    "image",
    "keep",
    "resources",
    "policy",
    "rules",
    "params",
    "results",
    "attrs",
)
PARAM_KEYS = ("type", "default", "choices")
PICKERS: dict[str, type[Picker]] = {"regex": RegexPicker, "csv": CsvPicker, "hdf5": Hdf5Picker}

T = TypeVar("T")


def command_job(text: str, source: Path) -> Job:
    """Make a job of the text of a TOML file.

    Parameters
    ----------
    text
        The file's text.
    source
        Absolute path of the file: relative defaults of paths start at its directory, and its stem
        is the job's name where the text gives none.

    Raises
    ------
    SpecError
        For TOML that does not parse, with its line; for an unknown key; for a value that is not
        allowed. It names the file and the key.
    """
    try:
        return _job(parse_toml(text), source)
    except SpecError as error:
        raise SpecError(error.problem, key=error.key, file=source, line=error.line) from None


def _job(table: dict[str, Any], source: Path) -> Job:
    _known(table, KEYS, "", owner="a command's job file")
    params = tuple(
        _param(name, value, source.parent) for name, value in _table(table, "params").items()
    )
    known = {param.name: param for param in params}
    resources = _resources(_table(table, "resources"))
    command = Command(
        ranks=resources.ntasks,
        argv=_argv(table.get("command"), known, source.parent),
        keep=_keep(table.get("keep", [])),
        results={
            name: _picker(name, value, known) for name, value in _table(table, "results").items()
        },
    )
    return Job(
        name=checked_name(table.get("name", source.stem)),
        kind="farm",
        params=params,
        resources=resources,
        body=command,
        takes_context=False,
        policy=_policy(_table(table, "policy"), resources),
        rules=_rules(_table(table, "rules")),
        image=checked_image(table.get("image")),
        seed=checked_seed(table.get("seed", 0)),
        attrs=_attrs(_table(table, "attrs"), [*command.results, *known]),
        doc=_text(table.get("doc", ""), "doc").partition("\n")[0],
    )


def _resources(options: Mapping[str, Any]) -> Resources:
    return _under("resources", lambda: Resources.from_options(options, owner="[resources]"))


def _policy(options: Mapping[str, Any], resources: Resources) -> Policy:
    def make() -> Policy:
        policy = Policy.from_options(options, owner="[policy]")
        policy.require_fitting(resources)
        return policy

    return _under("policy", make)


def _rules(options: Mapping[str, Any]) -> TaskRules:
    return _under("rules", lambda: TaskRules.from_options(options, owner="[rules]"))


def _attrs(table: Mapping[str, Any], names: Sequence[str]) -> Attrs:
    attrs = checked_attrs(table)
    for name in attrs:
        if name not in names:
            raise _prefixed(unknown("name", name, names, owner="the job"), "attrs")
    return attrs


def _argv(command: Any, params: Mapping[str, Param], directory: Path) -> tuple[str, ...]:
    if command is None:
        raise SpecError(
            'is missing; a TOML job has one, such as command = "lmp -in {input}"', key="command"
        )
    try:
        argv = tuple(shlex.split(_text(command, "command")))
        used = [name for token in argv for name in placeholders(token)]
    except ValueError as error:
        raise SpecError(f"{shown(command)} cannot be split: {error}", key="command") from None
    if not argv:
        raise SpecError("is empty; it names a program and its arguments", key="command")
    for name in used:
        if name not in params and name not in BUILT_IN:
            raise SpecError(
                f"{{{name}}} is no parameter; [params] has {listed(params) if params else 'none'}"
                f", and hpckit {listed(BUILT_IN)}{suggestion(name, [*params, *BUILT_IN])};"
                " a brace itself is written twice",
                key="command",
            )
    for name, param in params.items():
        if name not in used and param.type is not Path:
            raise SpecError(
                f"{{{name}}} does not stand in the command, so no value of it would have an effect",
                key=f"params.{name}",
            )
    check_no_code(argv, params)
    paths = [param.name for param in params.values() if param.type is Path]
    return (located(argv[0], paths, directory), *argv[1:])


def _param(name: str, value: Any, directory: Path) -> Param:
    key = f"params.{name}"
    if not name.isidentifier() or not name.isascii():
        raise SpecError("a parameter's name is letters, digits and '_'", key=key)
    if name in BUILT_IN:
        raise SpecError(
            f"the name is hpckit's: {{{name}}} stands for the task's own {name}, without a"
            " parameter; choose another",
            key=key,
        )
    fields = value if isinstance(value, dict) else {"default": value}
    _known(fields, PARAM_KEYS, key, owner="a parameter")
    return _under("params", lambda: _typed(name, fields, directory))


def _typed(name: str, fields: Mapping[str, Any], directory: Path) -> Param:
    kind = _kind(name, fields)
    param = Param.annotated(name, kind)
    if "choices" in fields:
        param = param.with_choices(_list(fields["choices"], f"{name}.choices"))
    if "default" not in fields:
        return param
    default = fields["default"]
    if kind is complex and isinstance(default, str):
        default = param.parse(default)
    if kind is Path and isinstance(default, str) and default:
        default = beside(directory, default)
    return param.with_default(default)


def _kind(name: str, fields: Mapping[str, Any]) -> type:
    if "type" in fields:
        kind = fields["type"]
        if not isinstance(kind, str) or kind not in TYPES:
            raise SpecError(
                f"{shown(kind)} is not allowed; one of {listed(map(repr, TYPES), 'or')}",
                key=f"{name}.type",
            )
        return TYPES[kind]
    samples = [fields["default"]] if "default" in fields else fields.get("choices")
    if not isinstance(samples, list) or not samples:
        raise SpecError(
            "has no type; write a value, or {type = 'float'}, or {choices = [1, 2]}", key=name
        )
    if type(samples[0]) not in (int, float, bool, str):
        raise SpecError(
            f"{shown(samples[0])} is not allowed; a number, true, false or text", key=name
        )
    return type(samples[0])


def _picker(name: str, fields: Any, params: Iterable[str]) -> Picker:
    key = f"results.{name}"
    if not name.isidentifier() or not name.isascii() or name in PARAMETERS or name in params:
        raise SpecError(
            "a result's name is letters, digits and '_', and neither a parameter's nor one of "
            + listed(PARAMETERS),
            key=key,
        )
    chosen = [kind for kind in PICKERS if isinstance(fields, dict) and kind in fields]
    if len(chosen) != 1:
        raise SpecError(
            f"{shown(fields)} is not allowed; one of {{regex = '...'}},"
            " {csv = 'file', column = 'name'} and {hdf5 = 'file', dataset = '/name'}",
            key=key,
        )
    model = PICKERS[chosen[0]]
    try:
        picker = model.model_validate(fields)
    except ValidationError as error:
        allowed = list(model.model_fields)
        raise _prefixed(refused(error, allowed, owner=f"the {chosen[0]} result"), key) from None
    _check_picker(picker, key)
    return picker


def _check_picker(picker: Picker, key: str) -> None:
    if isinstance(picker, RegexPicker):
        try:
            re.compile(picker.regex)
        except re.error as error:
            problem = f"{shown(picker.regex)} is no regular expression: {error}"
            raise SpecError(problem, key=f"{key}.regex") from None
        file = picker.file
    else:
        file = picker.csv if isinstance(picker, CsvPicker) else picker.hdf5
    if file is not None:
        _inside(file, key)


def _keep(globs: Any) -> tuple[str, ...]:
    return tuple(_inside(_text(glob, "keep"), "keep") for glob in _list(globs, "keep"))


def _inside(file: str, key: str) -> str:
    """Accept a path or glob only if it stays within the scratch directory."""
    path = PurePosixPath(file)
    if not file or "\0" in file or path.is_absolute() or ".." in path.parts or not path.parts:
        raise SpecError(
            f"{shown(file)} is not allowed; a path within the scratch directory, relative to it",
            key=key,
        )
    return file


def _known(table: Mapping[str, Any], keys: Iterable[str], prefix: str, *, owner: str) -> None:
    allowed = list(keys)
    for key in table:
        if key not in allowed:
            raise _prefixed(unknown("key", key, allowed, owner=owner), prefix)


def _prefixed(error: SpecError, prefix: str) -> SpecError:
    key = ".".join(part for part in (prefix, error.key) if part)
    return SpecError(error.problem, key=key, file=error.file, line=error.line)


def _under(prefix: str, make: Callable[[], T]) -> T:
    """Call `make`, and put the table's name before the key of its error."""
    try:
        return make()
    except SpecError as error:
        raise _prefixed(error, prefix) from None


def _table(table: Mapping[str, Any], key: str) -> dict[str, Any]:
    value = table.get(key, {})
    if not isinstance(value, dict):
        raise SpecError(f"{shown(value)} is not allowed; a table, [{key}]", key=key)
    return value


def _list(value: Any, key: str) -> list[Any]:
    if not isinstance(value, list):
        raise SpecError(f"{shown(value)} is not allowed; a list in brackets", key=key)
    return value


def _text(value: Any, key: str) -> str:
    if not isinstance(value, str):
        raise SpecError(f"{shown(value)} is not allowed; text in quotes", key=key)
    return value
