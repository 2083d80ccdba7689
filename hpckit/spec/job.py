"""What a user writes: a function under `farm` or `spmd`, or a command; both become a `Job`."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Annotated, Any, Literal, TypeAlias, cast, get_type_hints, overload

from pydantic import BaseModel, ConfigDict, Field

from hpckit.errors import SpecError, UsageError
from hpckit.spec.attributes import Attrs, checked_attrs
from hpckit.spec.command import Command
from hpckit.spec.messages import listed, shown, unknown
from hpckit.spec.params import Param, beside
from hpckit.spec.policy import Policy
from hpckit.spec.resources import Resources
from hpckit.spec.rules import TaskRules

Body: TypeAlias = Callable[..., Any]
Kind: TypeAlias = Literal["farm", "spmd"]

CONTEXT: dict[str, str] = {"farm": "task", "spmd": "run"}
OPTIONS = ("name", "seed", *Resources.model_fields, *Policy.model_fields, "image")
FARM_OPTIONS = ("attrs", "reduce", *TaskRules.model_fields)

AWAITED = 100
"""Tasks of an ``async def`` at a time, where nobody says how many."""

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}", re.ASCII)


class Job(BaseModel):
    """A job: what to run, over which parameters, with which resources.

    It can still be called, as the function itself can: ``ising(task, T=2.0)``.

    Attributes
    ----------
    name
        Part of every run's id: letters, digits, ``_``, ``.`` and ``-``.
    kind
        ``farm``, one call a parameter point, or ``spmd``, one program over all ranks.
    params
        In the order of the signature.
    resources
        What one run asks for.
    policy
        What is to happen when a submitted run's time is up or it does not end well.
    body
        The function, or the command.
    takes_context
        Whether the function's first parameter is ``task`` or ``run``.
    rules
        What is to happen when single tasks fail.
    reduce
        Merges what two tasks returned into one of the same kind; None keeps each result.
    image
        The path of an Apptainer image to work in, from the folder of the job's file.
    seed
        Entropy of the ``SeedSequence`` whose children are the streams of tasks and ranks.
    attrs
        Attributes, such as ``units`` and ``long_name``, by the name of a result or a parameter.
    doc
        One line of description.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True)

    name: str
    kind: Kind
    params: tuple[Param, ...]
    resources: Resources
    body: Body | Command
    takes_context: bool
    policy: Policy = Policy()
    rules: TaskRules = TaskRules()
    reduce: Body | None = None
    image: str | None = None
    seed: Annotated[int, Field(strict=True, ge=0)] = 0
    attrs: Attrs = {}
    doc: str = ""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the function that the job is made of.

        Raises
        ------
        UsageError
            If the job is a command.
        """
        if isinstance(self.body, Command):
            raise UsageError(f"{self.name} is a command; run it by 'hpckit run {self.name}'")
        return self.body(*args, **kwargs)

    @property
    def is_async(self) -> bool:
        """Whether the function is an ``async def``."""
        return inspect.iscoroutinefunction(self.body)

    def slots(self, workers: int) -> int:
        """Return how many tasks of a farm use cores when it works on so many at a time.

        Those of an ``async def`` wait, mostly, and share the cores of one.
        """
        return 1 if self.is_async else workers

    def on(self, resources: Resources) -> Job:
        """Return the job with other resources."""
        return self.model_copy(update={"resources": resources})

    def param(self, name: str) -> Param:
        """Return the parameter of that name.

        Raises
        ------
        SpecError
            If there is none; it lists those there are and the nearest.
        """
        for param in self.params:
            if param.name == name:
                return param
        raise unknown("parameter", name, [p.name for p in self.params], owner=self.name)


@overload
def farm(function: Body, /) -> Job: ...
@overload
def farm(**options: Any) -> Callable[[Body], Job]: ...
def farm(function: Body | None = None, /, **options: Any) -> Job | Callable[[Body], Job]:
    """Make a farm job of a function: one call for each point of a sweep.

    Parameters
    ----------
    function
        Takes annotated parameters, and before them ``task`` if it wants the context.
    **options
        Fields of `Resources`, with one task at most, of `Policy` and of `TaskRules`; ``seed``, an
        integer; ``image``, the path of an Apptainer image, from the job file's folder; ``attrs``,
        attributes by the name of a parameter or a result; ``reduce``, a function that merges two
        results; ``name``, where it is not to be the function's.

    Raises
    ------
    SpecError
        For an option or a parameter that is not allowed.
    """
    return _decorate("farm", function, options)


@overload
def spmd(function: Body, /) -> Job: ...
@overload
def spmd(**options: Any) -> Callable[[Body], Job]: ...
def spmd(function: Body | None = None, /, **options: Any) -> Job | Callable[[Body], Job]:
    """Make an spmd job of a function: one program that all the MPI ranks run.

    Parameters
    ----------
    function
        Takes ``run``, the context, and annotated parameters after it.
    **options
        As for `farm`, of any number of tasks, and without ``attrs``, as the units of a field are
        given where it is saved, without ``reduce`` and without `TaskRules`.

    Raises
    ------
    SpecError
        For an option or a parameter that is not allowed.
    """
    return _decorate("spmd", function, options)


def checked_options(options: Mapping[str, Any], kind: Kind) -> dict[str, Any]:
    """Validate a decorator's options; return fields of `Job`.

    Raises
    ------
    SpecError
        For an unknown option, a value that is not allowed, or one that a job of this kind
        cannot honour.
    """
    for option in options:
        _check_option(option, kind)

    def chosen(model: type[BaseModel]) -> dict[str, Any]:
        return {k: v for k, v in options.items() if k in model.model_fields}

    owner = f"@{kind}"
    resources = Resources.from_options(chosen(Resources), owner=owner)
    if kind == "farm":
        resources.require_one_task()
    policy = Policy.from_options(chosen(Policy), owner=owner)
    policy.require_fitting(resources)
    return {
        "resources": resources,
        "policy": policy,
        "rules": TaskRules.from_options(chosen(TaskRules), owner=owner),
        "reduce": checked_reduce(options.get("reduce")),
        "image": checked_image(options.get("image")),
        "seed": checked_seed(options.get("seed", 0)),
        "attrs": checked_attrs(options.get("attrs", {})),
    }


def _check_option(option: str, kind: Kind) -> None:
    if kind == "farm" or option not in FARM_OPTIONS:
        known = (*OPTIONS, *FARM_OPTIONS) if kind == "farm" else OPTIONS
        if option not in known:
            raise unknown("option", option, known, owner=f"@{kind}")
    elif option == "attrs":
        raise SpecError(
            "is for farms; an spmd job says it where it saves: run.save(..., units=, long_name=)",
            key=option,
        )
    else:
        raise SpecError(
            "is for farms; an spmd job has no tasks that fail by themselves", key=option
        )


def checked_reduce(function: Any) -> Body | None:
    """Accept a function of two results, or None.

    Raises
    ------
    SpecError
        For anything else.
    """
    if function is None:
        return None
    try:
        inspect.signature(function).bind(None, None)
    except ValueError:
        # Some built-in functions, such as max, have no signature that could be read.
        return cast(Body, function)
    except TypeError:
        raise SpecError(
            f"{shown(function)} is not allowed; a function of two results that returns one like "
            "them, such as def merge(a, b)",
            key="reduce",
        ) from None
    return cast(Body, function)


def checked_image(image: Any) -> str | None:
    """Accept a path, or None.

    Raises
    ------
    SpecError
        For anything else.
    """
    if image is None or (isinstance(image, str | Path) and str(image)):
        return None if image is None else str(image)
    raise SpecError(
        f"{shown(image)} is not allowed; the path of an Apptainer image, from the job's folder",
        key="image",
    )


def checked_seed(seed: Any) -> int:
    """Accept a whole number of at least 0.

    Raises
    ------
    SpecError
        For anything else.
    """
    if type(seed) is not int or seed < 0:
        raise SpecError(f"{shown(seed)} is not allowed; a whole number of at least 0", key="seed")
    return seed


def checked_name(name: Any) -> str:
    """Accept a name that can be part of a directory's and a scheduler's job name.

    Raises
    ------
    SpecError
        For any other name.
    """
    if isinstance(name, str) and _NAME.fullmatch(name):
        return name
    raise SpecError(
        f"{shown(name)} is not allowed; at most 64 letters, digits, '_', '.' and '-',"
        " the first a letter, a digit or '_'",
        key="name",
    )


def _decorate(
    kind: Kind, function: Body | None, options: Mapping[str, Any]
) -> Job | Callable[[Body], Job]:
    checked, name = checked_options(options, kind), options.get("name")

    def decorate(function: Body) -> Job:
        _check_function(kind, function)
        params, takes_context = _signature(kind, function)
        return Job(
            name=checked_name(function.__name__ if name is None else name),
            kind=kind,
            params=params,
            body=function,
            takes_context=takes_context,
            **checked,
            doc=next(iter((function.__doc__ or "").strip().splitlines()), ""),
        )

    return decorate if function is None else decorate(function)


def _check_function(kind: Kind, function: Any) -> None:
    if isinstance(function, Job):
        raise SpecError(f"{function.name} is a job already; one decorator is enough")
    if not inspect.isfunction(function):
        raise SpecError(f"@{kind} stands before a function; {shown(function)} is none")
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        raise SpecError(
            "the function must return its result; 'yield' is not allowed", key=function.__name__
        )
    if kind == "spmd" and inspect.iscoroutinefunction(function):
        raise SpecError(
            "'async def' is for farms, whose tasks wait together; the ranks of an spmd job do not",
            key=function.__name__,
        )


def _signature(kind: Kind, function: Body) -> tuple[tuple[Param, ...], bool]:
    parameters = list(inspect.signature(function).parameters.values())
    context = CONTEXT[kind]
    takes_context = bool(parameters) and parameters[0].name == context
    if kind == "spmd" and not takes_context:
        raise SpecError(
            f"an spmd function takes 'run' first: def {function.__name__}(run, ...)",
            key=parameters[0].name if parameters else function.__name__,
        )
    rest = parameters[takes_context:]
    if rest and rest[0] is parameters[0] and rest[0].name in CONTEXT.values():
        raise SpecError(
            f"the context of a {kind} is called {context!r}: write def {function.__name__}"
            f"({context}, ...)",
            key=rest[0].name,
        )
    return tuple(_param(function, parameter) for parameter in rest), takes_context


def _param(function: Body, parameter: inspect.Parameter) -> Param:
    name = parameter.name
    if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
        raise SpecError(
            "*args and **kwargs are not allowed; name each parameter and annotate it", key=name
        )
    if parameter.kind is parameter.POSITIONAL_ONLY:
        raise SpecError("is given by name, so it must not stand before a '/'", key=name)
    if parameter.annotation is parameter.empty and name in CONTEXT.values():
        raise SpecError(
            f"is hpckit's own if it comes first; put {name} before the others", key=name
        )
    if parameter.annotation is parameter.empty:
        raise SpecError(
            f"has no annotation; write {name}: float, or int, bool, str, complex, Path", key=name
        )
    param = Param.annotated(name, _resolved(function, parameter))
    if parameter.default is parameter.empty:
        return param
    if param.type is Path and isinstance(parameter.default, str | Path):
        # Beside the job file, wherever the job is started from.
        return param.with_default(beside(_directory(function), parameter.default))
    return param.with_default(parameter.default)


def _directory(function: Body) -> Path:
    return Path(inspect.unwrap(function).__code__.co_filename).absolute().parent


def _resolved(function: Body, parameter: inspect.Parameter) -> Any:
    """Resolve an annotation that ``from __future__ import annotations`` left as text."""
    holder = SimpleNamespace(__annotations__={parameter.name: parameter.annotation})
    try:
        hints = get_type_hints(holder, globalns=inspect.unwrap(function).__globals__)
    except Exception as error:
        raise SpecError(
            f"the annotation {parameter.annotation!r} does not resolve ({error}); allowed are"
            f" {listed(['int', 'float', 'bool', 'str', 'complex', 'Path', 'Literal[...]'])}",
            key=parameter.name,
        ) from None
    return hints[parameter.name]
