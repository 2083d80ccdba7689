"""Farms of coroutines as elements of an array."""

from __future__ import annotations

import h5py

NAPS = """
import asyncio
from hpckit import farm

@farm
async def nap(task, n: int = 0):
    await asyncio.sleep(0.05)
    return {"x": task.rng.random(), "square": n * n}
"""


def test_elements_work_coroutines(there):
    (there.folder / "coroutines.py").write_text(NAPS)
    run = there.submit("coroutines.py", "n=range(60)", "--elements", 2, "--workers", 2)
    ended = there.run("wait", run)
    assert ended.code == 0, ended.stderr
    with h5py.File(run / "results.h5") as file:
        assert file["square"][()].tolist() == [n * n for n in range(60)]
    assert there.digest(run) == there.local_digest("coroutines.py", "n=range(60)")
