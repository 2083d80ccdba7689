"""The names of output files, in which Slurm replaces `%j` and the like."""

from __future__ import annotations

import os
import pwd
import re

from fakes.jobs import Element

_PLACE = re.compile(r"%(\d*)([A-Za-z%])")
NOT_AN_ARRAY = str(2**32 - 2)
"""What `%a` is in a job that is no array."""


class Names:
    """Fills in the names of an element's files."""

    def __init__(self, element: Element, node: str) -> None:
        job = element.job
        self.cwd = job.data["cwd"]
        self.values = {
            "A": str(job.id),
            "a": element.key if job.is_array else NOT_AN_ARRAY,
            "J": f"{element.id}",
            "j": f"{element.id}",
            "N": node,
            "n": "0",
            "s": "batch",
            "t": "0",
            "u": pwd.getpwuid(job.data["uid"]).pw_name,
            "x": job.data["name"],
            "%": "%",
        }

    def fill(self, name: str) -> str:
        """Return the file's path; a backslash in it switches that off, and goes."""
        if "\\" in name:
            return os.path.join(self.cwd, name.replace("\\", ""))  # noqa: PTH118
        return os.path.join(self.cwd, _PLACE.sub(self._value, name))  # noqa: PTH118

    def _value(self, match: re.Match[str]) -> str:
        value = self.values.get(match[2])
        if value is None:
            return match[0]
        return value.zfill(int(match[1])) if match[1] and value.isdigit() else value
