"""What a job waits for: `--dependency=afterok:1:2_3,afterany:4`."""

from __future__ import annotations

import re
from collections.abc import Iterable

from fakes.jobs import Element
from fakes.ledger import Ledger
from fakes.selection import Selection

KINDS = ("after", "afterany", "afterok", "afternotok", "aftercorr")
MET, WAITING, NEVER = "fulfilled", "unfulfilled", "failed"

Condition = list[str]
"""A kind and a job, as they stand in a job's file."""


def read(text: str) -> list[Condition]:
    """Read what sbatch was given; ValueError if Slurm would not take it."""
    conditions: list[Condition] = []
    for part in re.split("[,?]", text):
        kind, *jobs = part.split(":")
        if kind == "singleton" and not jobs:
            conditions.append([kind, "0"])
            continue
        if kind not in KINDS or not jobs:
            raise ValueError(text)
        words = [re.sub(r"\+\d+$", "", job) for job in jobs]
        conditions += [[kind, word] for word in words if Selection(word)]
    return conditions


def standing(ledger: Ledger, element: Element) -> str:
    """Tell whether an element may start: MET, WAITING or NEVER."""
    asked = element.job.data["dependency"]
    if not asked:
        return MET
    found = [_standing(ledger, element, kind, job) for kind, job in asked["conditions"]]
    if asked["any"]:
        return _first((MET, WAITING), found) or NEVER
    return _first((NEVER, WAITING), found) or MET


def show(ledger: Ledger, element: Element) -> str:
    """Write what an element still waits for, as `squeue -o %E` does."""
    asked = element.job.data["dependency"]
    if not asked or element.state != "PENDING":
        return "(null)"
    parts = []
    for kind, job in asked["conditions"]:
        stands = _standing(ledger, element, kind, job)
        if stands != MET:
            others = ledger.find(Selection(job))
            of_all = "_*" if "_" not in job and others and others[0].job.is_array else ""
            parts.append("singleton" if kind == "singleton" else f"{kind}:{job}{of_all}({stands})")
    return ("?" if asked["any"] else ",").join(parts) or "(null)"


def _standing(ledger: Ledger, element: Element, kind: str, job: str) -> str:
    if kind == "singleton":
        return _singleton(ledger, element)
    others = ledger.find(Selection(job))
    if kind == "aftercorr":
        others = [other for other in others if other.key == element.key]
    if kind == "after":
        return WAITING if any(other.state == "PENDING" for other in others) else MET
    ended = [other.has_ended for other in others]
    good = [other.state == "COMPLETED" for other in others]
    if kind in ("afterok", "aftercorr") and any(
        e and not g for e, g in zip(ended, good, strict=True)
    ):
        return NEVER
    if not all(ended):
        return WAITING
    return NEVER if kind == "afternotok" and others and all(good) else MET


def _singleton(ledger: Ledger, element: Element) -> str:
    name = element.job.data["name"]
    earlier = [
        other
        for other in ledger.elements()
        if other.job.id < element.job.id and other.job.data["name"] == name
    ]
    return MET if all(other.has_ended for other in earlier) else WAITING


def _first(order: Iterable[str], found: list[str]) -> str | None:
    return next((one for one in order if one in found), None)
