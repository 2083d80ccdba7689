"""The command sacct."""

from __future__ import annotations

import os
import sys

from fakes import sacct_fields, words
from fakes.failures import Failure
from fakes.folder import Folder
from fakes.jobs import Element
from fakes.ledger import Ledger
from fakes.options import FLAG, VALUE, Reader
from fakes.sacct_fields import Row
from fakes.sbatch_options import Chosen
from fakes.selection import Selection
from fakes.selection import words as split

READER = Reader(
    "sacct",
    {
        **dict.fromkeys(
            ("noheader", "parsable", "parsable2", "allocations", "duplicates", "allusers"), FLAG
        ),
        **dict.fromkeys(("brief", "helpformat", "noconvert", "truncate"), FLAG),
        **dict.fromkeys(("jobs", "format", "starttime", "endtime", "user", "uid", "state"), VALUE),
        **dict.fromkeys(("name", "partition", "accounts", "delimiter", "units", "clusters"), VALUE),
    },
    "n=noheader p=parsable P=parsable2 X=allocations D=duplicates a=allusers b=brief e=helpformat "
    "T=truncate j=jobs o=format S=starttime E=endtime u=user s=state r=partition A=accounts "
    "M=clusters",
)
DEFAULT = "JobID,JobName,Partition,Account,AllocCPUS,State,ExitCode"
BRIEF = "JobID,State,ExitCode"
DISABLED = "Slurm accounting storage is disabled"


def main(argv: list[str]) -> int:
    """Print what the accounting knows."""
    folder = Folder.current()
    given, rest = READER.read(argv)
    options = dict(given)
    if rest:
        raise Failure("sacct: error: Unknown arguments:", *(f"sacct: error:  {w}" for w in rest))
    if "helpformat" in options:
        print(sacct_fields.all_names())
        return 0
    _reach(folder)
    fields = sacct_fields.read(options.get("format", BRIEF if "brief" in options else DEFAULT))
    _print(fields, options, _rows(Ledger(folder), options))
    return 0


def _reach(folder: Folder) -> None:
    """Fail if there is no accounting, or its database is down."""
    if folder.has("no-accounting") or os.environ.get("FAKE_SLURM_NO_ACCOUNTING"):
        raise Failure(DISABLED)
    if folder.has("database-down"):
        where = "failed to open persistent connection to host:localhost:6819"
        raise Failure(
            f"sacct: error: slurm_persist_conn_open_without_init: {where}: Connection refused",
            "sacct: error: Sending PersistInit msg: Connection refused",
            "sacct: error: Problem talking to the database: Connection refused",
        )


def _rows(ledger: Ledger, options: Chosen) -> list[Row]:
    wanted = [_selection(word) for word in split(options.get("jobs", ""))]
    states = {words.state(text) for text in options.get("state", "").split(",")} - {None}
    rows: list[Row] = []
    for group in _groups(ledger):
        element = group[0]
        if _is_wanted(element, wanted, options, states):
            for data in [*_past(element, options), element.data]:
                rows += _with_step(Row(ledger.folder, group, data), options)
    return rows


def _groups(ledger: Ledger) -> list[list[Element]]:
    """Return what has a record of its own, then what is still together, job by job."""
    groups: list[list[Element]] = []
    for job in ledger.jobs.values():
        together = job.unsplit()
        alone = [e for e in job.elements if e.is_visible and e not in together]
        groups += [[element] for element in alone]
        groups += [together] if together else []
    return groups


def _is_wanted(
    element: Element, wanted: list[Selection], options: Chosen, states: set[str | None]
) -> bool:
    if wanted and not any(_names(selection, element) for selection in wanted):
        return False
    if "name" in options and element.job.data["name"] not in options["name"].split(","):
        return False
    return not states or element.state in states


def _names(selection: Selection, element: Element) -> bool:
    """An array's pending element is found by the array's number only."""
    together = element.job.is_array and "id" not in element.data
    return selection.names(element) and not (together and selection.keys)


def _past(element: Element, options: Chosen) -> list[dict]:
    return element["past"] or [] if "duplicates" in options else []


def _with_step(row: Row, options: Chosen) -> list[Row]:
    has_step = row.data.get("start") is not None and "allocations" not in options
    return [row, row.step()] if has_step else [row]


def _print(fields: list[sacct_fields.Field], options: Chosen, rows: list[Row]) -> None:
    if options.keys() & {"parsable", "parsable2"}:
        separator = options.get("delimiter", "|")
        end = separator if "parsable" in options else ""
        lines = [] if "noheader" in options else [[field.name for field in fields]]
        lines += [[field.value(row) for field in fields] for row in rows]
        text = "".join(f"{separator.join(line)}{end}\n" for line in lines)
    else:
        lines = [] if "noheader" in options else [[f.text(f.name) for f in fields]]
        lines += [] if "noheader" in options else [["-" * f.width for f in fields]]
        lines += [[field.text(field.value(row)) for field in fields] for row in rows]
        text = "".join(f"{' '.join(line)} \n" for line in lines)
    sys.stdout.write(text)


def _selection(word: str) -> Selection:
    try:
        return Selection(word)
    except ValueError:
        raise Failure(f"sacct: fatal: Bad job/step specified: {word}") from None
