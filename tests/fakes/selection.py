"""Jobs as a command line names them: `12`, `12_3`, `12_[1-3]`, `12.batch`."""

from __future__ import annotations

import re

from fakes import indices
from fakes.jobs import Element

_WORD = re.compile(r"(\d+)(?:_(\d+|\[[^\]]*\]))?(?:\.(\w+))?")
_COMMA = re.compile(r",(?![^\[]*\])")


class Selection:
    """A job, or some elements of an array."""

    def __init__(self, word: str) -> None:
        """Read it; ValueError if it names nothing."""
        match = _WORD.fullmatch(word)
        if match is None:
            raise ValueError(word)
        self.word, self.step = word, match[3]
        self.job = int(match[1])
        self.keys = match[2] and {str(key) for key in indices.array(match[2])[0]}

    def names(self, element: Element) -> bool:
        """Tell whether it names an element, by the job or by the element's own number."""
        if self.keys:
            return element.job.id == self.job and element.key in self.keys
        return self.job in (element.job.id, element.id)


def words(text: str) -> list[str]:
    """Split at the commas outside brackets."""
    return [word for word in _COMMA.split(text) if word]
