"""Slurm: scripts handed to sbatch, once each, and asked after."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from hpckit.errors import UsageError
from hpckit.jobstates import Standing
from hpckit.store.rundir import RunDir
from hpckit.store.submission import Submission
from hpckit.submit import accounting
from hpckit.submit.client import NoAnswer, Refused, ask, once, pauses, say
from hpckit.submit.survey import max_array_size

DEFAULT_ARRAY_SIZE = 1001
"""Slurm's own (slurm.conf(5), MaxArraySize)."""

_ID = re.compile(r"(?P<id>\d+)(?:;\S*)?")


class Slurm:
    """The Slurm of the cluster that this machine belongs to."""

    def check(self, script: Path, options: Sequence[str]) -> str:
        """Have sbatch check a script without queueing it, and return what it says.

        Raises
        ------
        UsageError
            It would be refused.
        LaunchError
            Slurm does not answer.
        """
        try:
            return ask(["sbatch", "--test-only", *options, str(script)]).strip()
        except Refused as refusal:
            raise UsageError(f"Slurm would refuse it: {refusal}") from None

    def submit(
        self, script: Path, options: Sequence[str], arguments: Sequence[str], tag: str
    ) -> str:
        """Queue a script that bears a tag, and return the job's id.

        When there is no answer, the job may be in the queue all the same: it is looked for
        before it is submitted again.

        Raises
        ------
        UsageError
            It was refused, in Slurm's own words.
        NoAnswer
            Slurm did not answer in time.
        """
        argv = ["sbatch", "--parsable", f"--comment={tag}", *options, str(script), *arguments]
        tried = False
        for pause in pauses(say):
            try:
                if tried and (found := self.find(tag)):
                    return found[0]
                tried = True
                return _id(once(argv))
            except Refused as refusal:
                raise UsageError(f"Slurm refuses it: {refusal}") from None
            except NoAnswer as error:
                pause(error)
        raise AssertionError

    def find(self, tag: str) -> list[str]:
        """Return the ids of the jobs in the queue that bear a tag.

        Raises
        ------
        NoAnswer
            Slurm does not answer.
        """
        text = once(accounting.queue_question("%F|%k"))
        return list(accounting.tagged(text.splitlines(), tag))

    def standings(self, submissions: Mapping[RunDir, Submission]) -> dict[RunDir, Standing]:
        """Return how the jobs of many runs stand; see `hpckit.submit.accounting`."""
        return accounting.standings(submissions)

    def cancel(self, ids: Sequence[str]) -> None:
        """End jobs, queued or running; those that have ended do not matter.

        Raises
        ------
        LaunchError
            Slurm does not answer, or forbids it.
        """
        for start in range(0, len(ids), accounting.IDS_A_CALL):
            with suppress(_AlreadyGone):
                _cancel(ids[start : start + accounting.IDS_A_CALL])

    def max_array_size(self) -> int:
        """Return the number that an array's indices stay below."""
        return max_array_size(ask(["scontrol", "show", "config"])) or DEFAULT_ARRAY_SIZE


class _AlreadyGone(Exception):
    pass


def _cancel(ids: Sequence[str]) -> None:
    try:
        ask(["scancel", "--quiet", *ids])
    except Refused as refusal:
        if "already completing or completed" in str(refusal) or "Invalid job id" in str(refusal):
            raise _AlreadyGone from None
        raise


def _id(printed: str) -> str:
    """Read the id that ``sbatch --parsable`` prints last: ``id`` or ``id;cluster``."""
    last = next((line for line in reversed(printed.splitlines()) if line.strip()), "")
    match = _ID.fullmatch(last.strip())
    if match is None:
        # It was accepted, so it must not be submitted again.
        raise Refused(f"sbatch printed {printed.strip()!r}, which names no job")
    return match["id"]
