"""Start-up: the command line against click, an empty spmd job against a bare mpirun."""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

from timing import header, medians, row

EMPTY = "from hpckit import spmd\n\n@spmd\ndef empty(run):\n    pass\n"


def main() -> None:
    """Print the table."""
    header()
    python, bin_folder = sys.executable, Path(sys.executable).parent
    lean = medians(
        {
            "click": [python, "-c", "import click"],
            "help": [str(bin_folder / "hpckit"), "--help"],
        },
        15,
    )
    ratio = lean["help"] / lean["click"]
    row("`hpckit --help` against `import click`", f"{ratio:.2f}×", "≤ 3×", ratio <= 3)

    with tempfile.TemporaryDirectory() as folder:
        job = Path(folder, "empty.py")
        job.write_text(EMPTY)
        mpirun = {
            **os.environ,
            "OMPI_ALLOW_RUN_AS_ROOT": "1",
            "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
        }
        ranks = medians(
            {
                "bare": [
                    str(bin_folder / "mpirun"),
                    "-n",
                    "2",
                    python,
                    "-c",
                    "from mpi4py import MPI",
                ],
                "hpckit": [str(bin_folder / "hpckit"), "run", str(job), "--ranks", "2"],
            },
            7,
            cwd=folder,
            env=mpirun,
        )
    over = ranks["hpckit"] - ranks["bare"]
    row(
        "`run --ranks 2` of an empty job over a bare mpirun",
        f"{over:+.2f} s ({ranks['hpckit']:.2f} against {ranks['bare']:.2f})",
        "≤ 0.5 s",
        over <= 0.5,
    )


if __name__ == "__main__":
    main()
