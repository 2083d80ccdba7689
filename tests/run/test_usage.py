"""What the manifest says that a run used."""

from __future__ import annotations

import pytest

JOB = """
    import time
    from hpckit import farm

    @farm
    def burn(n: int = 0, seconds: float = 0.5):
        end = time.thread_time() + seconds
        block = bytearray(200_000_000)
        while time.thread_time() < end:
            pass
        return {"size": len(block)}
"""


@pytest.mark.parametrize("engine", ["serial", "threads", "processes"])
def test_the_time_and_memory_of_workers_count(hpckit, engine):
    hpckit.job(JOB)
    assert hpckit("run", "job.py", "n=range(4)", "--engine", engine).code == 0
    used = hpckit.manifest().usage
    # The processes' own start is in it, once.
    assert 2 <= used["cpu_seconds"] < 4
    assert max(used["driver_peak_bytes"], used["children_peak_bytes"]) > 200_000_000


def test_what_a_command_uses_counts(hpckit):
    hpckit.job("import sys\nsum(range(int(sys.argv[1])))\n", "burn.py")
    hpckit.job(
        'command = "python3 {script} {n}"\n[params]\nn = 10_000_000\n'
        'script = { type = "path", default = "burn.py" }\n',
        "burn.toml",
    )
    assert hpckit("run", "burn.toml", "repeat=4").code == 0
    assert hpckit.manifest().usage["cpu_seconds"] > 0.4
