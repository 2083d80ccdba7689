"""How near hpckit's jobs come to what a card can do; it needs one, and hpckit[gpu,jobs].

    python benchmarks/gpu.py FOLDER [--small]

`--small` has sizes at which all of it runs in a minute, to see that it does.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from timing import header, row

STREAM = """
import time
import numpy as np
from hpckit import farm

SOURCE = '''
__global__ void twice(const double *x, double *y, int n)
{
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) y[i] = 2 * x[i];
}
'''

@farm(gpus_per_task=1)
def stream(task, mib: int = 1024):
    gpu = task.gpu
    twice = gpu.kernel(SOURCE, "twice", bytes_per_thread=16)
    x, y = gpu.pinned((mib, 131072)), gpu.pinned((mib, 131072))
    x[:] = 1.0
    def step(x, y, stream):
        twice(x, y, x.size, threads=x.size, stream=stream)
    gpu.stream_blocks(step, [x], [y], max(mib // 6, 1))
    begun = time.perf_counter()
    gpu.stream_blocks(step, [x], [y], max(mib // 6, 1))
    seconds = time.perf_counter() - begun
    ceilings = gpu.ceilings
    slower = min(ceilings["to_card_bytes_per_second"], ceilings["to_host_bytes_per_second"])
    return {"share": x.nbytes / seconds / slower, "right": bool(np.all(y == 2))}
"""

START = """
import time
from pathlib import Path
from hpckit.run.gpu.held import card_here
from hpckit.run.gpu.wish import Wish
gpu = card_here(Wish(1, 1, Path.cwd(), Path.cwd() / "runs" / "bare" / "gpus"))
made = time.perf_counter()
x = gpu.zeros(1)
gpu.kernel("__global__ void one(double *x) { x[0] = 1; }", "one")(x, grid=1, block=1)
gpu.synchronize()
print(time.perf_counter() - made)
"""


def main(folder: Path, *, is_small: bool) -> None:
    """Print the table."""
    folder.mkdir(parents=True, exist_ok=True)
    size = (lambda large, small: small) if is_small else (lambda large, small: large)
    flow = (f"n={size(4096, 16)}", f"max_time={size(1, 2)}", "lid=0.3")
    _kernel(folder, "cavity", flow, "stream_collide", "of_bandwidth", 0.85)
    spins = (f"L={size(16384, 16)}", f"sweeps={size(200, 40)}", "T=2.0")
    _kernel(folder, "ising", spins, "heat_bath", "of_bandwidth", 0.85)
    stars = (f"n={size(131072, 128)}", "steps=4")
    _kernel(folder, "nbody", stars, "forces", "of_roof", 0.60)
    (folder / "stream.py").write_text(STREAM)
    _run(folder, "run", "stream.py", f"mib={size(8192, 12)}")
    shown = json.loads(_run(folder, "show", "last", "--json"))
    share = _value(shown, "share")
    row("streaming, of the slower way over the link", f"{share:.2f}", ">= 0.90", share >= 0.9)
    starts = [float(_python(folder, START)) for _ in range(4)]
    row("first launch of a later start", f"{min(starts[1:]):.2f} s", "< 0.5 s", min(starts) < 0.5)


def _kernel(
    folder: Path, job: str, sizes: tuple[str, ...], kernel: str, part: str, least: float
) -> None:
    ranks = ("--ranks", "1") if job == "cavity" else ()
    begun = time.monotonic()
    _run(folder, "run", job, *sizes, *ranks, "--gpus-per-task", "1")
    seconds = time.monotonic() - begun
    report = json.loads(_run(folder, "gpu", "report", "last", "--json"))
    (found,) = (each for each in report["kernels"] if each["name"] == kernel)
    share = found[part]
    what = {"of_bandwidth": "copy bandwidth", "of_roof": "peak"}[part]
    told = f"{share:.2f} ({report['cards'][0]['name']}, {seconds:.1f} s in all)"
    row(f"{job} {' '.join(sizes)}: {kernel}, of {what}", told, f">= {least}", share >= least)


def _value(shown: dict[str, Any], name: str) -> float:
    """Return the value of the one task."""
    (task,) = shown["tasks"]
    return float(task[name])


def _run(folder: Path, *arguments: str) -> str:
    return _called(folder, "-m", "hpckit", *arguments)


def _python(folder: Path, text: str) -> str:
    return _called(folder, "-c", text)


def _called(folder: Path, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, *arguments], cwd=folder, capture_output=True, text=True, check=False
    )
    if done.returncode:
        sys.exit(f"{arguments}: {done.stdout}{done.stderr}")
    return done.stdout


if __name__ == "__main__":
    header()
    main(Path(sys.argv[1]), is_small="--small" in sys.argv)
