"""Programs in an image beside the same ones outside: ``python benchmarks/image.py IMAGE``."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from timing import header, medians, row

ROUNDS = 7
RANKS = 2
CAVITY = Path(__file__).parents[1] / "jobs/cavity.py"

PING = """
import time
import numpy as np
from mpi4py import MPI
world = MPI.COMM_WORLD
def half_trip(size, rounds):
    data = np.zeros(size, np.uint8)
    times = []
    for _ in range(rounds):
        world.Barrier()
        begun = time.perf_counter()
        for _ in range(100):
            if world.rank == 0:
                world.Send(data, 1); world.Recv(data, 1)
            else:
                world.Recv(data, 0); world.Send(data, 0)
        times.append((time.perf_counter() - begun) / 200)
    return sorted(times)[len(times) // 2]
for size, rounds in ((8, 50), (1 << 20, 7)):
    found = half_trip(size, rounds)
    if world.rank == 0:
        print(found)
"""


def contained(image: str, *program: str) -> list[str]:
    """Return the line that runs a program in an image."""
    return ["apptainer", "--quiet", "exec", "--no-home", image, *program]


def ranks(*program: str) -> list[str]:
    """Return the line that starts ranks of a program."""
    return [str(Path(sys.executable).with_name("mpiexec")), "-n", str(RANKS), *program]


def pings(argv: list[str]) -> list[float]:
    """Return the seconds that 8 bytes and 1 MiB take from rank to rank: the best of some runs.

    Where the ranks come to lie on the cores decides more than an image does.
    """
    runs = [
        [float(line) for line in subprocess.check_output(argv, text=True).split()] for _ in range(6)
    ]
    return [min(column) for column in zip(*runs, strict=True)]


def main(image: str) -> None:
    """Print the table."""
    os.environ |= {
        "PRTE_MCA_rmaps_default_mapping_policy": "slot:oversubscribe",
        "OMPI_ALLOW_RUN_AS_ROOT": "1",
        "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
        "OMPI_MCA_pml": "ob1",
        "OMPI_MCA_btl": "^tcp,ofi,usnic,uct",
    }
    header()
    code = "import numpy"
    starts = medians(
        {"in": contained(image, "python3", "-c", code), "out": [sys.executable, "-c", code]}, ROUNDS
    )
    more = starts["in"] - starts["out"]
    told = f"{more:.2f} s more ({starts['in']:.2f} against {starts['out']:.2f})"
    row("start of a Python that imports NumPy", told, "< 0.3 s more", more < 0.3)
    with tempfile.TemporaryDirectory() as folder:
        run = [sys.executable, "-m", "hpckit", "run", str(CAVITY), "n=320", "-o", folder]
        run += ["--ranks", str(RANKS)]
        seconds = medians({"in": [*run, "--image", image], "out": run}, 3)
    ratio = seconds["in"] / seconds["out"]
    told = f"{ratio:.3f} × ({seconds['in']:.1f} s against {seconds['out']:.1f} s)"
    row(f"cavity n=320 on {RANKS} ranks, all in", told, "≤ 1.05 ×", ratio <= 1.05)
    inside = pings(ranks(*contained(image, "python3", "-c", PING)))
    outside = pings(ranks(sys.executable, "-c", PING))
    for what, near, far in zip(("8 bytes", "1 MiB"), inside, outside, strict=True):
        told = f"{near / far:.2f} × ({near * 1e6:.2f} µs against {far * 1e6:.2f} µs)"
        row(f"{what} from rank to rank", told, "≤ 1.5 ×", near / far <= 1.5)


if __name__ == "__main__":
    main(sys.argv[1])
