"""Apptainer itself: where it is, what it is asked, what it says."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from hpckit.errors import HpckitError, UsageError

LAST_LINES = 15

_COLOURS = re.compile("\x1b\\[[0-9;]*m")

COMPRESSION = "-comp zstd -Xcompression-level 6"
"""Made and read in less time than mksquashfs's own choice, gzip."""

EPOCH = "1704067200"
"""2024-01-01."""


def find_apptainer() -> str:
    """Return the path of `apptainer`.

    Raises
    ------
    UsageError
        There is none.
    """
    found = shutil.which("apptainer")
    if found is None:
        raise UsageError(
            "images need Apptainer, and there is no `apptainer` on the PATH: load the site's "
            "module, or install it: https://apptainer.org/docs/admin/latest/installation.html"
        )
    return found


def last_words(stderr: str) -> str:
    """Return the last line of what Apptainer said, without its colours."""
    lines = _COLOURS.sub("", stderr).strip().splitlines()
    return lines[-1] if lines else "it says nothing"


def version() -> str:
    """Return Apptainer's version."""
    said = subprocess.run([find_apptainer(), "version"], capture_output=True, text=True)
    return said.stdout.strip()


def run_inside(
    image: str, program: Sequence[str], timeout: float | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a program in an image and keep what it says.

    Raises
    ------
    subprocess.TimeoutExpired
        It took longer.
    """
    argv = [find_apptainer(), "--quiet", "exec", "--no-home", "--cleanenv", image, *program]
    return subprocess.run(
        argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=timeout
    )


def build(
    recipe: Path,
    target: Path,
    arguments: Iterable[tuple[str, str]],
    log: Path,
    report: Callable[[str], None],
) -> None:
    """Build an image.

    Parameters
    ----------
    arguments
        Of the recipe: names and values.
    log
        Gets all that Apptainer says.
    report
        Gets its lines on what it is at.

    Raises
    ------
    HpckitError
        It does not build; the message has the last lines.
    """
    given = [word for name, value in arguments for word in ("--build-arg", f"{name}={value}")]
    options = ["--force", *_as_root(), "--mksquashfs-args", COMPRESSION]
    # A recipe need not have all of hpckit's arguments.
    options += ["--warn-unused-build-args", *given]
    argv = [find_apptainer(), "build", *options, str(target), str(recipe)]
    if _logged(argv, log, report):
        said = [line for line in log.read_text().splitlines() if line]
        last = "\n".join(said[-LAST_LINES:])
        raise HpckitError(f"{recipe} does not build (all of it: {log}):\n{last}")


def _logged(argv: Sequence[str], log: Path, report: Callable[[str], None]) -> int:
    """Run a command of Apptainer's; return its exit status."""
    with (
        log.open("w") as stream,
        subprocess.Popen(
            argv,
            # Times in the image are those of this moment in every build.
            env={**os.environ, "SOURCE_DATE_EPOCH": EPOCH},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        ) as process,
    ):
        assert process.stdout is not None
        for line in process.stdout:
            stream.write(line)
            if line.startswith("INFO:"):
                report(line.removeprefix("INFO:").strip())
    return process.returncode


def _as_root() -> list[str]:
    """Return the option by which one may be root in the image without being it outside.

    Root of a container lacks capabilities that Apptainer wants, and may take it too.
    """
    user = "root" if os.geteuid() == 0 else os.environ.get("USER", str(os.geteuid()))
    try:
        lines = Path("/etc/subuid").read_text().splitlines()
    except OSError:
        lines = []
    names = {line.partition(":")[0] for line in lines}
    return ["--fakeroot"] if os.geteuid() or names & {user, "0"} else []
