"""Farms whose results are merged, as job arrays: elements share them by runs of neighbours."""

from __future__ import annotations

SUMS = """
    from pathlib import Path
    from hpckit import farm

    @farm(mem="100M", walltime="5m", reduce=lambda a, b: a + b)
    def sums(task, n: int = 3):
        if n % 50 == 7 and not Path("{mended}").exists():
            raise ValueError("not yet")
        return str(n) + " " + str(task.rng.random()) + ","
"""


def test_an_array_whose_failed_tasks_are_submitted_again(there, tmp_path):
    mended = tmp_path / "mended"
    there.job(SUMS.format(mended=mended))
    run = there.submit("job.py", "n=range(1,301)", "--elements", 3, "--workers", 2)
    assert there.run("wait", run).code == 3
    assert "294 of 300 tasks: 6 tasks left out" in there.run("show", run).stdout
    mended.touch()
    there("retry", run)
    assert there.run("wait", run).code == 0
    assert there.digest(run) == there.local_digest("job.py", "n=range(1,301)")
