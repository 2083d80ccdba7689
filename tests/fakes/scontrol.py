"""The command scontrol: requeue, hold, release, show, ping."""

from __future__ import annotations

import os
import signal
import socket
import sys
import time

from fakes import hosts, processes, scontrol_show
from fakes.failures import Failure
from fakes.folder import SILENCE, Folder
from fakes.indices import ranges
from fakes.jobs import Element
from fakes.ledger import Ledger
from fakes.options import FLAG, Reader
from fakes.scheduling import changing
from fakes.selection import Selection
from fakes.selection import words as split

READER = Reader(
    "scontrol",
    dict.fromkeys(("oneliner", "quiet", "verbose", "all", "details"), FLAG),
    "o=oneliner Q=quiet v=verbose a=all d=details",
)
UNEXPECTED = "Unexpected message received"
UNKNOWN = "Invalid job id specified"
GOOD = "No error"


def main(argv: list[str]) -> int:
    """Do what the first word says."""
    folder = Folder.current()
    _, words = READER.read(argv)
    verb, *rest = words or [""]
    if verb == "ping":
        return _ping(folder)
    if verb == "show":
        return _show(folder, rest)
    if verb not in CHANGES:
        raise Failure(f"invalid keyword: {verb}")
    if not rest:
        raise Failure(f"too few arguments for keyword:{verb}")
    jobs = [word for text in rest for word in split(text)]
    return _change(folder, verb, jobs)


def _ping(folder: Folder) -> int:
    where = f"Slurmctld(primary) at {socket.gethostname().partition('.')[0]} is"
    stars = "*" * 41
    if folder.has("down"):
        print(f"{where} DOWN\n{stars}\n** RESTORE SLURMCTLD DAEMON TO SERVICE **\n{stars}")
        return 1
    print(f"{where} UP")
    return 0


def _show(folder: Folder, words: list[str]) -> int:
    what, names = words[0] if words else "", words[1:]
    if what == "hostnames":
        print("\n".join(hosts.expand(",".join(names))))
    elif what == "config":
        folder.reach(f"slurm_load_ctl_conf error: {SILENCE}")
        print(scontrol_show.config(folder))
    elif what in ("job", "jobs"):
        folder.reach(f"slurm_load_jobs error: {SILENCE}")
        known = list(Ledger(folder).recent(time.time()))
        found = [e for e in known if not names or any(Selection(n).names(e) for n in names)]
        if names and not found:
            raise Failure(f"slurm_load_jobs error: {UNKNOWN}")
        print("\n".join(map(scontrol_show.element, found)) or "No jobs in the system")
    else:
        raise Failure(f"invalid entity:{what} for keyword:show ")
    return 0


def _change(folder: Folder, verb: str, jobs: list[str]) -> int:
    """Change jobs; all that can be is changed, and the rest told of."""
    folder.reach(*(line for job in jobs for line in _lines(verb, UNEXPECTED, job)))
    errors: list[str] = []
    with changing(folder) as ledger:
        for job in jobs:
            errors += _errors(verb, job, _answers(ledger, verb, job))
        ending = [element for element in ledger.elements() if element["completing"]]
    for element in ending:
        processes.send(element["stepd"], signal.SIGUSR1)
    sys.stderr.write("".join(f"{line}\n" for line in errors))
    return 1 if errors else 0


def _lines(verb: str, what: str, job: str) -> list[str]:
    more = [] if verb == "requeue" else [f"slurm_suspend error: {what}"]
    return [f"{what} for job {job}", *more]


def _errors(verb: str, job: str, answers: dict[str, list[Element]]) -> list[str]:
    """Return what to say of a word's answers: an array's element by element, if one is bad."""
    bad = next((answer for answer in answers if answer != GOOD), None)
    if bad is None:
        return []
    is_array = "_" in job or any(e.job.is_array for e in answers[bad])
    return _by_element(job, answers) if is_array else _lines(verb, bad, job)


def _answers(ledger: Ledger, verb: str, job: str) -> dict[str, list[Element]]:
    """Change what a word names, and return which elements got which answer."""
    try:
        wanted = Selection(job)
    except ValueError:
        return {UNKNOWN: []}
    recent = {id(element) for element in ledger.recent(time.time())}
    found = [element for element in ledger.find(wanted) if id(element) in recent]
    answers: dict[str, list[Element]] = {}
    for element in found:
        answers.setdefault(CHANGES[verb](element), []).append(element)
    return answers or {UNKNOWN: []}


def _by_element(job: str, answers: dict[str, list[Element]]) -> list[str]:
    lines = []
    for answer, elements in answers.items():
        keys = ranges(sorted({int(e.key) for element in elements for e in _record(element)}))
        lines.append(f"{elements[0].job.id}_{keys}: {answer}" if elements else f"{job}: {answer}")
    return lines


def _record(element: Element) -> list[Element]:
    """Return the elements that are one record with it."""
    return element.job.unsplit() if "id" not in element.data else [element]


def _requeue(element: Element) -> str:
    if element.state == "PENDING":
        return "Job is pending execution"
    if not element.job.may_come_back():
        return "Requested operation is presently disabled"
    if element["completing"]:
        element.set(state="REQUEUED")
    elif element.state == "RUNNING":
        element.end("REQUEUED", why=" DUE TO JOB REQUEUE")
    else:
        element.set(state="REQUEUED")
        element.come_back()
    return GOOD


def _hold(element: Element) -> str:
    if element.has_ended:
        return "Job has already finished"
    element.set(held="JobHeldAdmin" if os.getuid() == 0 else "JobHeldUser")
    return GOOD


def _release(element: Element) -> str:
    if element.has_ended:
        return "Job has already finished"
    element.set(held=None)
    return GOOD


CHANGES = {"requeue": _requeue, "hold": _hold, "release": _release}
