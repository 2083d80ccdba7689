"""The command squeue."""

from __future__ import annotations

import os
import pwd
import sys
import time
from collections.abc import Iterable

from fakes import squeue_fields, words
from fakes.failures import Failure
from fakes.folder import SILENCE, Folder
from fakes.jobs import Element
from fakes.ledger import Ledger
from fakes.options import FLAG, MAYBE, VALUE, Reader
from fakes.sbatch_options import Chosen
from fakes.selection import Selection
from fakes.selection import words as split
from fakes.squeue_fields import Row

READER = Reader(
    "squeue",
    {
        **dict.fromkeys(("noheader", "me", "array", "all"), FLAG),
        **dict.fromkeys(("user", "states", "format", "name", "partition", "sort"), VALUE),
        **dict.fromkeys(("jobs", "job"), MAYBE),
    },
    "h=noheader j=jobs u=user t=states r=array o=format n=name p=partition S=sort a=all",
)
LIVE = ("PENDING", "RUNNING", "SUSPENDED", "COMPLETING", "CONFIGURING")
DEFAULT = "%.18i %.9P %.8j %.8u %.2t %.10M %.6D %R"


def main(argv: list[str]) -> int:
    """Print what is in the queue."""
    folder = Folder.current()
    given, rest = READER.read(_joined(argv))
    if rest:
        raise Failure(f"squeue: error: Unrecognized option: {rest[0]}")
    options = dict(given)
    folder.reach(f"slurm_load_jobs error: {SILENCE}")
    found = Question(Ledger(folder), options).rows()
    fields = squeue_fields.read(options.get("format", DEFAULT))
    if "noheader" not in options:
        print(squeue_fields.header(fields))
    for row in found:
        print(squeue_fields.line(fields, row))
    return 0


def _joined(argv: list[str]) -> list[str]:
    """Join `-j 12` to one word, as squeue understands it though the value is optional."""
    words = list(argv)
    for place, word in enumerate(words[:-1]):
        if word in ("-j", "--jobs", "--job") and not words[place + 1].startswith("-"):
            words[place : place + 2] = [f"--jobs={words[place + 1]}"]
            return _joined(words)
    return words


class Question:
    """What is asked for, and the rows that answer it."""

    def __init__(self, ledger: Ledger, options: Chosen) -> None:
        self.ledger, self.options, self.now = ledger, options, time.time()
        self.states = _states(options)
        named = options.get("jobs") or options.get("job", "")
        self.jobs = [_selection(word) for word in split(named)]
        self.names = options["name"].split(",") if "name" in options else None
        self.partitions = options["partition"].split(",") if "partition" in options else None
        self.uids = _uids(options)

    def rows(self) -> list[Row]:
        """Return them in squeue's order; the pending elements of an array are one."""
        known = list(self.ledger.recent(self.now))
        if len(self.jobs) == 1 and not any(self.jobs[0].job in (e.job.id, e.id) for e in known):
            raise Failure("slurm_load_jobs error: Invalid job id specified")
        found = [element for element in known if self._is_wanted(element)]
        one_by_one = "array" in self.options
        rows = [Row(self.ledger, group, one_by_one) for group in self._groups(found)]
        return sorted(rows, key=lambda row: row.place)

    def _is_wanted(self, element: Element) -> bool:
        job = element.job.data
        return (
            (self.states is None or bool({element.state, element.in_queue} & self.states))
            and (not self.jobs or any(wanted.names(element) for wanted in self.jobs))
            and (self.names is None or job["name"] in self.names)
            and (self.partitions is None or job["partition"] in self.partitions)
            and (self.uids is None or job["uid"] in self.uids)
        )

    def _groups(self, found: Iterable[Element]) -> list[list[Element]]:
        groups: dict[object, list[Element]] = {}
        for element in found:
            alone = "array" in self.options or not _is_waiting(element)
            groups.setdefault(element.label if alone else element.job.id, []).append(element)
        return list(groups.values())


def _is_waiting(element: Element) -> bool:
    """Tell whether it is shown with the others of its array."""
    if element.in_queue == "PENDING":
        return element.job.is_array
    return element.has_ended and element.job.is_array and "id" not in element.data


def _states(options: Chosen) -> set[str] | None:
    """Return the states that are asked for, None for all."""
    if "states" not in options:
        return set(LIVE)
    if options["states"].lower() == "all":
        return None
    found = set()
    for text in options["states"].split(","):
        word = words.state(text)
        if word is None:
            valid = ",".join(words.CODES)
            raise Failure(
                f"squeue: error: Invalid job state specified: {text}",
                f"squeue: error: Valid job states include: {valid}\n",
            )
        found.add(word)
    return found


def _uids(options: Chosen) -> set[int] | None:
    """Return the users that are asked for, None for all; an unknown one is told of only."""
    if "me" in options:
        return {os.getuid()}
    if "user" not in options:
        return None
    found = set()
    for name in options["user"].split(","):
        try:
            found.add(int(name) if name.isdigit() else pwd.getpwnam(name).pw_uid)
        except KeyError:
            print(f"squeue: error: Invalid user: {name}\n", file=sys.stderr)
    return found or None


def _selection(word: str) -> Selection:
    try:
        return Selection(word)
    except ValueError:
        raise Failure(f"squeue: error: Invalid job id: {word}") from None
