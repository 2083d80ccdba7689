"""The one place that runs Slurm's commands."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence

from hpckit.errors import LaunchError, UsageError
from hpckit.variables import OF_ONE_JOB

TIMEOUT = 60.0
"""Seconds that a command may take: a controller that is down is given up by Slurm after 9 to 30."""

PATIENCE_VARIABLE = "HPCKIT_SLURM_PATIENCE"
PATIENCE = 60.0
"""Seconds for which a question is asked again while Slurm does not answer."""

_SILENT = re.compile(
    r"unable to contact slurm|socket timed out|zero bytes were transmitted|connection refused"
    r"|connection timed out|connect failure|munge|authentication|standby mode"
    r"|temporarily un|try again|communication connection failure|unable to connect",
    re.IGNORECASE,
)
"""What commands say when slurmctld, slurmdbd or munge is down or busy."""


_DEAF = re.compile(r"unable to contact|connect failure|connection refused|munge", re.IGNORECASE)
"""What they say when nobody can have heard them."""


_PREFIX = re.compile(r"\w+: (?:error|fatal): ")


_KEPT = ("SLURM_CONF", "SLURM_JWT")
"""Where Slurm is, and who asks."""


class Refused(LaunchError):
    """Slurm answered, and the answer is no; the message is its own words."""


class NoAnswer(LaunchError):
    """Slurm did not answer.

    Attributes
    ----------
    may_have_heard
        Whether it may have done all the same what it was asked for.
    """

    def __init__(self, message: str, *, may_have_heard: bool) -> None:
        self.may_have_heard = may_have_heard
        super().__init__(message)


def once(argv: Sequence[str]) -> str:
    """Run a command and return what it prints.

    The variables ``SBATCH_…`` and the like are taken away from it: they would override the
    directives of a script. So are those of a job around this process, which sbatch would hand on.

    Raises
    ------
    UsageError
        There is no such program here.
    Refused, NoAnswer
        It failed.
    """
    try:
        done = subprocess.run(
            argv,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=TIMEOUT,
            check=False,
            stdin=subprocess.DEVNULL,
            env=_environment(),
        )
    except FileNotFoundError:
        raise UsageError(
            f"{argv[0]}: no such program on the PATH: this is no node of a Slurm cluster, or its "
            "module is not loaded"
        ) from None
    except subprocess.TimeoutExpired:
        told = f"{argv[0]}: no answer in {TIMEOUT:.0f} s"
        raise NoAnswer(told, may_have_heard=True) from None
    if done.returncode == 0:
        # `srun --mpi=list` prints to stderr.
        return done.stdout or done.stderr
    lines = (done.stderr or done.stdout).splitlines()
    said = "; ".join(_PREFIX.sub("", line).strip() for line in lines if line.strip())
    told = f"{argv[0]}: {said or f'ended with exit status {done.returncode}'}"
    if _SILENT.search(said):
        raise NoAnswer(told, may_have_heard=not _DEAF.search(said))
    raise Refused(told)


def ask(argv: Sequence[str]) -> str:
    """Run a command that changes nothing or may be run twice, again and again until it answers.

    Raises
    ------
    UsageError, Refused, NoAnswer
        As `once`.
    """
    for pause in pauses():
        try:
            return once(argv)
        except NoAnswer as error:
            pause(error)
    raise AssertionError


def pauses() -> Iterator[Callable[[NoAnswer], None]]:
    """Yield what waits before the next try, and raises what it is given when time is up.

    It waits half a second, then twice as long each time, 15 seconds at most.
    """
    end, seconds, heard = time.monotonic() + patience(), 0.5, False

    def pause(error: NoAnswer) -> None:
        nonlocal heard
        heard = heard or error.may_have_heard
        left = end - time.monotonic()
        if left <= 0:
            told = f"{error} (asked for {patience():.0f} s: is slurmctld or munge down?)"
            raise NoAnswer(told, may_have_heard=heard)
        print(f"hpckit: {error}: asked again for {left:.0f} s", file=sys.stderr, flush=True)
        time.sleep(min(seconds, left))

    while True:
        yield pause
        seconds = min(2 * seconds, 15.0)


def patience() -> float:
    """Return how many seconds to wait for Slurm's answer in all.

    Raises
    ------
    UsageError
        The variable that says so is no number.
    """
    text = os.environ.get(PATIENCE_VARIABLE)
    try:
        return PATIENCE if text is None else float(text)
    except ValueError:
        raise UsageError(f"${PATIENCE_VARIABLE}={text!r}: must be a number of seconds") from None


def _environment() -> dict[str, str]:
    foreign = ("SBATCH_", "SQUEUE_", "SACCT_", "SCANCEL_", "SLURM_")
    own = {
        name: value
        for name, value in os.environ.items()
        if name in _KEPT or not (name.startswith(foreign) or name in OF_ONE_JOB)
    }
    # By default squeue cuts the ids of an array's elements off after 31 characters.
    return {**own, "SLURM_BITSTR_LEN": "0"}
