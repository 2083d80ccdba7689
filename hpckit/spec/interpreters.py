"""Programs that run one of their arguments as code: no parameter may become part of that.

A command runs without a shell, so a value is only ever data, unless the command itself
starts an interpreter: in ``sh -c 'rm {name}'`` the value would be code again. The tables hold
what is known of programs; what any other makes of its arguments cannot be known.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path, PurePosixPath

from hpckit.errors import SpecError
from hpckit.spec.command import placeholders
from hpckit.spec.params import Param

_SHELLS = ("sh", "bash", "dash", "ash", "zsh", "ksh", "mksh", "fish", "csh", "tcsh")
_CODE_LETTERS = dict.fromkeys(_SHELLS, "c") | {
    "python": "c",
    "pypy": "c",
    "perl": "eE",
    "ruby": "e",
    "node": "ep",
    "julia": "eE",
    "Rscript": "e",
    "lua": "e",
    "env": "S",
}
_TAKE_A_VALUE = ("-o", "+o", "-O", "+O", "-W", "-X", "-I", "--rcfile", "--init-file")
_LONG_CODE = ("--command", "--eval", "--print", "--split-string")

_AWKS = ("awk", "gawk", "mawk", "nawk")
_AWK_VALUE = re.compile(r"-v ?[A-Za-z_]\w*=")
_REMOTE_SHELLS = ("ssh", "rsh")
_ALL_CODE = (*_AWKS, *_REMOTE_SHELLS, "sed", "find", "xargs", "make", "gmake")
"""Programs any word of which may be code in a language of theirs, or an option that runs it."""

_CODE_OPTIONS = ("-c", "-e", "-r", "-batch", "-code", "--command", "--eval", "--execute")
"""Options of any program after which code is likely."""


def check_no_code(argv: Sequence[str], params: Mapping[str, Param]) -> None:
    """See that no parameter's value would be executed.

    Parameters
    ----------
    argv
        The command's tokens.
    params
        The job's parameters by name.

    Raises
    ------
    SpecError
        For a placeholder in a shell's or an interpreter's code; for one that could be any text
        where the program, an interpreter's options, or likely code stand. It says how to pass
        the value instead.
    """
    for name in _loose(argv[0], params):
        raise SpecError(
            f"{{{name}}} would choose the program that runs; write the program out, or make"
            f" {name} of type 'path'",
            key="command",
        )
    for place, token in enumerate(argv):
        program, rest = _program(token), argv[place + 1 :]
        if program in _ALL_CODE:
            _check_words(program, rest, params)
            return
        if program in _CODE_LETTERS and _check_call(program, rest, params):
            return
        _check_option(_program(argv[0]), token, rest, params)


def _check_call(program: str, rest: Sequence[str], params: Mapping[str, Param]) -> bool:
    """Check an interpreter's options and its code or script; tell whether it has one."""
    head = _before_arguments(rest)
    option = next((token for token in head if _runs_code(token, _CODE_LETTERS[program])), "")
    if program == "env" and not option:
        return False
    for token in head:
        for name in placeholders(token) if option else _loose(token, params):
            remedy = f"pass it as an argument of its own: {_remedy(program, option, name)}"
            raise _refused(name, program, remedy)
    return True


def _check_words(program: str, words: Sequence[str], params: Mapping[str, Param]) -> None:
    free = _texts if program in _REMOTE_SHELLS else _texts_but_files
    for before, word in pairwise(("", *words)):
        if program in _AWKS and _AWK_VALUE.match(f"-v {word}" if before == "-v" else word):
            continue
        for name in free(word, params):
            safe = f"awk -v {name}={{{name}}}" if program in _AWKS else "a number or a choice"
            raise _refused(name, program, f"what is safe there: {safe}")


def _check_option(
    program: str, token: str, rest: Sequence[str], params: Mapping[str, Param]
) -> None:
    """Check what follows or is attached to an option that is known for code."""
    option = re.match(r"--?[a-z]+", token)
    if option is None or option[0] not in _CODE_OPTIONS:
        return
    by = f"{program} {option[0]}"
    for code in rest[:1] if token == option[0] else [token]:
        for name in _texts_but_files(code, params):
            raise _refused(
                name, by, f"where it is no code, say so: sh -c '{by} \"$1\"' sh {{{name}}}"
            )


def _refused(name: str, by: str, remedy: str) -> SpecError:
    return SpecError(f"{{{name}}} would be run as code by {by}; {remedy}", key="command")


def _before_arguments(rest: Sequence[str]) -> Sequence[str]:
    """Return the options and the first argument, which is the code, or the script's file."""
    end, takes_value = 0, False
    for end, token in enumerate(rest, start=1):  # noqa: B007
        if not takes_value and token[:1] not in ("-", "+"):
            break
        takes_value = token in _TAKE_A_VALUE
    return rest[:end]


def _runs_code(token: str, letters: str) -> bool:
    if token.partition("=")[0] in _LONG_CODE:
        return True
    if token[:1] != "-" or token[:2] == "--" or token[:2] in _TAKE_A_VALUE:
        return False
    return any(letter in token for letter in letters)


def _remedy(program: str, option: str, name: str) -> str:
    if program in _SHELLS:
        flag = option if option.lstrip("-").isalpha() else "-c"
        return f"{program} {flag} '… \"$1\"' {program} {{{name}}}"
    return f"{program} script {{{name}}}"


def _program(token: str) -> str:
    name = PurePosixPath(token).name
    return re.sub(r"[\d.]+$", "", name) or name


def _loose(token: str, params: Mapping[str, Param]) -> list[str]:
    """Return the placeholders whose value could be any text, an option's too."""
    named = [params[name] for name in placeholders(token) if name in params]
    return [param.name for param in named if param.type is str and not param.choices]


def _texts(token: str, params: Mapping[str, Param]) -> list[str]:
    """Return the placeholders whose value could hold any text, a file's name too."""
    named = [params[name] for name in placeholders(token) if name in params]
    return [param.name for param in named if param.type in (str, Path) and not param.choices]


def _texts_but_files(token: str, params: Mapping[str, Param]) -> list[str]:
    """Leave out a path that the token begins with: it is absolute, so a file's name and no code."""
    return [
        name
        for name in _texts(token, params)
        if params[name].type is str or not token.startswith(f"{{{name}}}")
    ]
