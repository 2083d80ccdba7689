"""Command lines, read as GNU's getopt_long does and in its words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from fakes.failures import Failure

FLAG, VALUE, MAYBE = 0, 1, 2
"""An option takes no value, takes one, takes one only as `--name=value`."""

Given = list[tuple[str, str]]


class Reader:
    """Reads the options of a command."""

    def __init__(
        self, command: str, longs: Mapping[str, int], shorts: str, *, status: int = 1
    ) -> None:
        self.command, self.longs, self.status = command, longs, status
        self.shorts = dict(pair.split("=") for pair in shorts.split())

    def read(self, argv: Sequence[str], *, mixed: bool = True) -> tuple[Given, list[str]]:
        """Return the options in their order, and what is none; `mixed`: after that too."""
        given: Given = []
        rest: list[str] = []
        left = list(argv)
        while left:
            word = left.pop(0)
            if word == "--" or (not _is_option(word) and not mixed):
                return given, [*rest, *([] if word == "--" else [word]), *left]
            if not _is_option(word):
                rest.append(word)
            elif word.startswith("--"):
                given.append(self._long(word, left))
            else:
                given += self._short(word[1:], left)
        return given, rest

    def _long(self, word: str, left: list[str]) -> tuple[str, str]:
        typed, equals, value = word[2:].partition("=")
        name = self._name(typed, word)
        if equals and self.longs[name] == FLAG:
            raise self._wrong(f"option '--{name}' doesn't allow an argument")
        if not equals and self.longs[name] == VALUE:
            if not left:
                raise self._wrong(f"option '--{name}' requires an argument")
            value = left.pop(0)
        return name, value

    def _name(self, typed: str, word: str) -> str:
        if typed in self.longs:
            return typed
        found = [name for name in self.longs if name.startswith(typed)]
        if not found:
            raise self._wrong(f"unrecognized option '{word}'")
        if len(found) > 1:
            possible = " ".join(f"'--{name}'" for name in found)
            raise self._wrong(f"option '{word}' is ambiguous; possibilities: {possible}")
        return found[0]

    def _short(self, letters: str, left: list[str]) -> Given:
        given: Given = []
        while letters:
            letter, letters = letters[0], letters[1:]
            if letter not in self.shorts:
                raise self._wrong(f"invalid option -- '{letter}'")
            name = self.shorts[letter]
            if self.longs[name] == FLAG:
                given.append((name, ""))
                continue
            if not letters and self.longs[name] == VALUE and not left:
                raise self._wrong(f"option requires an argument -- '{letter}'")
            taken = left.pop(0) if not letters and self.longs[name] == VALUE else letters
            return [*given, (name, taken)]
        return given

    def _wrong(self, what: str) -> Failure:
        lines = [f"{self.command}: {what}"]
        if self.command != "sacct":
            lines.append(f'Try "{self.command} --help" for more information')
        return Failure(*lines, status=self.status)


def _is_option(word: str) -> bool:
    return len(word) > 1 and word.startswith("-")
