"""The roofline of a run: its kernels under what its card can do.

Williams, Waterman & Patterson, Commun. ACM 52, 65 (2009).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from hpckit.analyse.gpus import GpuUse
from hpckit.analyse.plots import new_figure, save_figure
from hpckit.errors import UsageError


def plot_roofline(use: GpuUse, title: str, path: Path) -> None:
    """Draw it into a file of any common type.

    Raises
    ------
    UsageError
        No kernel says what it moves and computes; or as `hpckit.analyse.plots` has it.
    """
    points = [kernel for kernel in use.kernels if kernel.intensity and kernel.seconds]
    ceilings = next((card["ceilings"] for card in use.cards if card["ceilings"]), None)
    if not points or ceilings is None:
        raise UsageError(
            "a roofline needs bytes_per_thread and flops_per_thread of a kernel: give them to "
            "gpu.kernel"
        )
    figure = new_figure(figsize=(7, 5), layout="constrained")
    axes = figure.subplots()
    intensities = [kernel.intensity or 1.0 for kernel in points]
    roofs = [ceilings["float32_per_second"], ceilings["float64_per_second"]]
    ridge = max(roofs) / ceilings["bytes_per_second"]
    x = np.geomspace(min(*intensities, ridge) / 8, max(*intensities, ridge) * 8, 200)
    for name, roof, style in zip(("float32", "float64"), roofs, ("--", "-"), strict=True):
        y = np.minimum(x * ceilings["bytes_per_second"], roof)
        axes.loglog(x, y, style, color="black", linewidth=1)
        axes.annotate(f"{name} {_engineering(roof)}FLOP/s", (x[-1], roof), ha="right", va="bottom")
    bandwidth = ceilings["bytes_per_second"]
    axes.annotate(
        f"copy {_engineering(bandwidth)}B/s ",
        (x[30], x[30] * bandwidth),
        ha="right",
        va="bottom",
    )
    for kernel in points:
        rate = kernel.flops / kernel.seconds
        axes.plot(kernel.intensity, rate, "o")
        axes.annotate(f" {kernel.name} {kernel.of_bound or 0:.0%}", (kernel.intensity, rate))
    axes.set(xlabel="FLOP / byte", ylabel="FLOP / s", title=f"{title}\n{use.cards[0]['name']}")
    save_figure(figure, path)


def _engineering(number: float) -> str:
    for unit in ("", "k", "M", "G", "T"):
        if number < 1000:
            return f"{number:.3g} {unit}"
        number /= 1000
    return f"{number:.3g} P"
