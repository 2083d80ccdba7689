"""The states of jobs, in Slurm's words and order, and Slurm's codes for them."""

from __future__ import annotations

CODES = {
    "PENDING": "PD",
    "RUNNING": "R",
    "SUSPENDED": "S",
    "COMPLETED": "CD",
    "CANCELLED": "CA",
    "FAILED": "F",
    "TIMEOUT": "TO",
    "NODE_FAIL": "NF",
    "PREEMPTED": "PR",
    "BOOT_FAIL": "BF",
    "DEADLINE": "DL",
    "OUT_OF_MEMORY": "OOM",
    "COMPLETING": "CG",
    "CONFIGURING": "CF",
    "RESIZING": "RS",
    "RESV_DEL_HOLD": "RD",
    "REQUEUED": "RQ",
    "REQUEUE_FED": "RF",
    "REQUEUE_HOLD": "RH",
    "REVOKED": "RV",
    "SIGNALING": "SI",
    "SPECIAL_EXIT": "SE",
    "STAGE_OUT": "SO",
    "STOPPED": "ST",
}
UNFINISHED = ("PENDING", "RUNNING", "REQUEUED")
MAY_COME_BACK = ("REQUEUED", "NODE_FAIL", "PREEMPTED")

ORDER = {word: number for number, word in enumerate(CODES)}


def state(text: str) -> str | None:
    """Return the word for a word or a code, in any case."""
    upper = text.upper()
    return next((word for word, code in CODES.items() if upper in (word, code)), None)
