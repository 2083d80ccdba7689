"""The command scancel."""

from __future__ import annotations

import os
import pwd
import signal

from fakes import processes, words
from fakes.failures import Failure
from fakes.folder import SILENCE, Folder
from fakes.jobs import Element
from fakes.ledger import Ledger
from fakes.options import FLAG, VALUE, Reader
from fakes.request import signal_number
from fakes.sbatch_options import Chosen
from fakes.scheduling import changing
from fakes.selection import Selection
from fakes.selection import words as split

READER = Reader(
    "scancel",
    {
        **dict.fromkeys(("quiet", "verbose", "batch", "full", "me", "hurry"), FLAG),
        **dict.fromkeys(("signal", "name", "jobname", "user", "state", "partition"), VALUE),
    },
    "Q=quiet v=verbose b=batch f=full H=hurry s=signal n=name u=user t=state p=partition",
)
FILTERS = ("name", "jobname", "user", "state", "partition", "me")


def main(argv: list[str]) -> int:
    """End jobs, or send them a signal."""
    folder = Folder.current()
    given, rest = READER.read(argv)
    options = dict(given)
    names = [word for text in rest for word in split(text)]
    wanted = [_selection(word) for word in names]
    if not wanted and not options.keys() & set(FILTERS):
        raise Failure("scancel: error: No job identification provided")
    number = _number(options)
    _reach(folder, names)
    with changing(folder) as ledger:
        found, unknown = _found(ledger, wanted, options)
        ended = [e for e in found if number is None and _cancel(folder, e, wanted, options)]
    for element in found if number is not None else ended:
        _tell(element, number, options)
    if unknown and number is not None:
        raise Failure(*(_error(word, "Invalid job id specified") for word in unknown))
    return 0


def _number(options: Chosen) -> int | None:
    """Return the signal to send, None to end jobs."""
    if "signal" not in options:
        return None
    try:
        number = signal_number(options["signal"])
    except ValueError:
        raise Failure(f"Unknown job signal: {options['signal']}") from None
    return None if number == signal.SIGKILL else number


def _reach(folder: Folder, names: list[str]) -> None:
    if names:
        folder.reach(*(_error(name, SILENCE) for name in names), status=8)
    folder.reach(f"slurm_load_jobs error: {SILENCE}")


def _error(job: str, what: str) -> str:
    return f"scancel: error: Kill job error on job id {job}: {what}"


def _found(
    ledger: Ledger, wanted: list[Selection], options: Chosen
) -> tuple[list[Element], list[str]]:
    """Return the elements that are meant, and the words that mean nobody."""
    alive = [element for element in ledger.elements() if not element.has_ended]
    chosen = [e for e in alive if not wanted or any(one.names(e) for one in wanted)]
    unknown = [one.word for one in wanted if not any(one.names(e) for e in alive)]
    return [element for element in chosen if _passes(element, options)], unknown


def _passes(element: Element, options: Chosen) -> bool:
    job = element.job.data
    user = pwd.getpwuid(job["uid"]).pw_name
    name = options.get("name", options.get("jobname", job["name"]))
    return (
        job["name"] == name
        and options.get("user", user) in (user, str(job["uid"]))
        and options.get("partition", job["partition"]) == job["partition"]
        and words.state(options.get("state", element.in_queue)) == element.in_queue
    )


def _cancel(folder: Folder, element: Element, wanted: list[Selection], options: Chosen) -> bool:
    """Have an element end; return whether its supervisor must be told."""
    if element["completing"]:
        return False
    if any(one.keys for one in wanted) or "state" in options:
        element.split(folder)
    ran = element.state == "RUNNING"
    element.end("CANCELLED", by=os.getuid(), grace="signal" not in options)
    return ran


def _tell(element: Element, number: int | None, options: Chosen) -> None:
    """Tell the supervisor; a signal goes to the shell, or to all of the job, or to its steps."""
    if number is None:
        processes.send(element["stepd"], signal.SIGUSR1)
    elif "full" in options and element["shell"]:
        for process in processes.below(element["stepd"][0]):
            processes.send(process, number)
    elif "batch" in options:
        processes.send(element["shell"], number)


def _selection(word: str) -> Selection:
    try:
        return Selection(word)
    except ValueError:
        raise Failure(f"scancel: error: Invalid job id {word}") from None
