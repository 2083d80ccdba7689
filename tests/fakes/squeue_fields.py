"""The fields of `squeue --format`."""

from __future__ import annotations

import os
import pwd
import re
import sys
import time
from collections.abc import Callable

from fakes import clock, dependencies, indices, words
from fakes.jobs import Element
from fakes.ledger import Ledger

_FIELD = re.compile(r"%(\.?)(\d*)([A-Za-z])([^%]*)")
CUT = 31
"""Characters that squeue shows of an array's number, without $SLURM_BITSTR_LEN."""


class Row:
    """One line: an element, or all pending ones of an array."""

    def __init__(self, ledger: Ledger, group: list[Element], is_alone: bool) -> None:
        self.ledger, self.first = ledger, group[0]
        self.job = self.first.job.data
        self.keys = [int(element.key) for element in group if element.key]
        held = self.first["held"] is not None and self.first.state == "PENDING"
        order = words.ORDER[self.first.in_queue]
        self.place = (self.job["partition"], order, held, self.job["id"], self.keys)
        together = "id" not in self.first.data and self.first.in_queue in ("PENDING", "CANCELLED")
        self.is_group = not is_alone and self.first.job.is_array and (together or len(group) > 1)

    def id(self) -> str:
        """Return `12`, `12_3` or `12_[4-9%2]`, cut as squeue does."""
        if not self.is_group:
            return self.first.label
        text = f"{self.job['id']}_[{self.tasks()}]"
        return text if "SLURM_BITSTR_LEN" in os.environ else text[:CUT]

    def number(self) -> str:
        """Return the number of the job that it is, or the array's."""
        return str(self.job["id"] if self.is_group else self.first.id)

    def tasks(self) -> str:
        """Return the index or indices."""
        if not self.first.job.is_array:
            return "N/A"
        return indices.show(self.keys, self.job["throttle"]) if self.is_group else self.first.key

    def reason(self) -> str:
        """Return why it waits, or why it failed."""
        return self.first["held"] or self.first["reason"] or "None"

    def nodes_or_reason(self) -> str:
        """Return where it runs, or why it does not."""
        if self.first.state == "PENDING" and not self.first["completing"]:
            return f"({self.reason()})"
        return self.first["nodes"] or ""

    def elapsed(self) -> float:
        """Return how long it has run."""
        start = self.first["start"]
        end = self.first["end"] or time.time()
        return max(0.0, end - start) if start else 0.0

    def end(self) -> float | None:
        """Return when it ended or must end."""
        limit = self.job["limit"]
        due = self.first["start"] + limit if self.first["start"] and limit else None
        return self.first["end"] or due


def _moment(value: float | None) -> str:
    return "N/A" if value is None else clock.stamp(value)


FIELDS: dict[str, tuple[str, Callable[[Row], str]]] = {
    "A": ("JOBID", Row.number),
    "a": ("ACCOUNT", lambda row: row.job["account"]),
    "C": ("CPUS", lambda row: str(row.job["cpus"])),
    "D": ("NODES", lambda row: str(row.job["node_count"])),
    "E": ("DEPENDENCY", lambda row: dependencies.show(row.ledger, row.first)),
    "e": ("END_TIME", lambda row: _moment(row.end())),
    "F": ("ARRAY_JOB_ID", lambda row: str(row.job["id"])),
    "i": ("JOBID", Row.id),
    "j": ("NAME", lambda row: row.job["name"]),
    "K": ("ARRAY_TASK_ID", Row.tasks),
    "k": ("COMMENT", lambda row: "(null)" if row.job["comment"] is None else row.job["comment"]),
    "l": ("TIME_LIMIT", lambda row: clock.short(clock.shown(row.job["limit"]))),
    "M": ("TIME", lambda row: clock.short(row.elapsed())),
    "N": ("NODELIST", lambda row: row.first["nodes"] or ""),
    "o": ("COMMAND", lambda row: row.job["command"]),
    "P": ("PARTITION", lambda row: row.job["partition"]),
    "q": ("QOS", lambda row: "normal"),
    "R": ("NODELIST(REASON)", Row.nodes_or_reason),
    "r": ("REASON", Row.reason),
    "S": ("START_TIME", lambda row: _moment(row.first["start"])),
    "T": ("STATE", lambda row: row.first.in_queue),
    "t": ("ST", lambda row: words.CODES[row.first.in_queue]),
    "U": ("UID", lambda row: str(row.job["uid"])),
    "u": ("USER", lambda row: pwd.getpwuid(row.job["uid"]).pw_name),
    "V": ("SUBMIT_TIME", lambda row: _moment(row.first["submit"] or row.job["submit"])),
    "Z": ("WORK_DIR", lambda row: row.job["cwd"]),
}


class Field:
    """A field with its width, and what stands behind it."""

    def __init__(self, right: str, width: str, letter: str, after: str) -> None:
        self.header, self.value = FIELDS[letter]
        self.right, self.width, self.after = bool(right), int(width or 0), after

    def text(self, value: str) -> str:
        """Return a value as wide as it is to be."""
        if self.width:
            value = value[: self.width]
            value = value.rjust(self.width) if self.right else value.ljust(self.width)
        return value + self.after


Format = tuple[str, list[Field]]


def read(text: str) -> Format:
    """Read a format; what is no field is told of and left out."""
    fields = []
    for right, width, letter, after in _FIELD.findall(text):
        if letter in FIELDS:
            fields.append(Field(right, width, letter, after))
        else:
            print(f"squeue: error: Invalid job format specification: {letter}", file=sys.stderr)
    return text.partition("%")[0], fields


def header(form: Format) -> str:
    """Return the line above."""
    return form[0] + "".join(field.text(field.header) for field in form[1])


def line(form: Format, row: Row) -> str:
    """Return a row's line."""
    return form[0] + "".join(field.text(field.value(row)) for field in form[1])
