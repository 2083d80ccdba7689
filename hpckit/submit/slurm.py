"""Slurm: scripts handed to sbatch, once each, and asked after."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from hpckit.errors import UsageError
from hpckit.jobstates import Standing
from hpckit.store.rundir import RunDir
from hpckit.store.submission import Submission
from hpckit.submit import accounting
from hpckit.submit.client import NoAnswer, Refused, ask, once, pauses
from hpckit.submit.survey import max_array_size

LOOKS, LOOK_SECONDS = 5, 2.0
"""How often a job whose submission was not answered is looked for, and the pause between."""

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
        is_lost = False
        for pause in pauses():
            try:
                if is_lost and (found := self._found_late(tag)):
                    return found
                return _id(once(argv))
            except Refused as refusal:
                raise UsageError(f"Slurm refuses it: {refusal}") from None
            except NoAnswer as error:
                is_lost = is_lost or error.may_have_heard
                pause(error)
        raise AssertionError

    def _found_late(self, tag: str) -> str | None:
        """Look for a job again and again: a busy slurmctld may take a request that it has heard."""
        for _ in range(LOOKS):
            found = [job for job, comment in self.tagged().items() if comment == tag]
            if found:
                return found[0]
            time.sleep(LOOK_SECONDS)
        return None

    def tagged(self) -> dict[str, str]:
        """Return the comment of each of the user's jobs in the queue, by its id.

        Raises
        ------
        NoAnswer
            Slurm does not answer.
        """
        return accounting.tags(once(accounting.tags_question()).splitlines())

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

    def limits(self) -> tuple[str, int]:
        """Return the cluster's name, and the number that an array's indices stay below.

        Raises
        ------
        LaunchError
            Slurm does not answer.
        """
        config = ask(["scontrol", "show", "config"])
        name = re.search(r"^ClusterName\s*=\s*(\S+)", config, re.MULTILINE)
        return name[1] if name else "", max_array_size(config) or DEFAULT_ARRAY_SIZE


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
    """Read the id that ``sbatch --parsable`` prints, beside what a site's wrapper may say."""
    matches = [_ID.fullmatch(line.strip()) for line in printed.splitlines()]
    for match in filter(None, matches):
        return match["id"]
    # It was accepted, so it must be in the queue.
    told = f"sbatch printed {printed.strip()!r}, which names no job"
    raise NoAnswer(told, may_have_heard=True)
