"""Programs that run one of their arguments as code: no parameter may become part of that.

A command runs without a shell, so a value is only ever data, unless the command itself
starts an interpreter: in ``sh -c 'rm {name}'`` the value would be code again.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath

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
        For a placeholder in a shell's or an interpreter's code, and for one of type str where the
        program or such an interpreter's options stand; it says how to pass the value instead.
    """
    for name in _loose(argv[0], params):
        raise SpecError(
            f"{{{name}}} would choose the program that runs; write the program out, or make"
            f" {name} of type 'path'",
            key="command",
        )
    for place, token in enumerate(argv):
        letters = _CODE_LETTERS.get(_program(token))
        if letters is not None:
            _check_call(_program(token), letters, argv[place + 1 :], params)


def _check_call(
    program: str, letters: str, rest: Sequence[str], params: Mapping[str, Param]
) -> None:
    head = _before_arguments(rest)
    option = next((token for token in head if _runs_code(token, letters)), "")
    if program == "env" and not option:
        return
    for token in head:
        names = placeholders(token) if option else _loose(token, params)
        for name in names:
            raise SpecError(
                f"{{{name}}} would be run as code by {program}; pass it as an argument of its own:"
                f" {_remedy(program, option, name)}",
                key="command",
            )


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
