"""What the manifest says that a run used."""

from __future__ import annotations

import pytest

ALL_ENGINES = pytest.mark.parametrize("engine", ["serial", "threads", "processes"])

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


@ALL_ENGINES
def test_the_time_and_memory_of_workers_count(hpckit, engine):
    hpckit.job(JOB)
    assert hpckit("run", "job.py", "n=range(4)", "--engine", engine).code == 0
    used = hpckit.manifest().usage
    # The processes' own start is in it, once.
    assert 2 <= used["cpu_seconds"] < 4
    assert max(used["driver_peak_bytes"], used["children_peak_bytes"]) > 200_000_000


@ALL_ENGINES
def test_the_time_of_workers_counts_once(hpckit, engine):
    """What hpckit itself uses is in the difference of neither run."""
    hpckit.job(JOB)
    seconds = []
    for each in (0, 1.5):
        ended = hpckit("run", "job.py", "n=0,1", f"seconds={each}", "--engine", engine)
        assert ended.code == 0, ended.stderr
        seconds.append(hpckit.manifest().usage["cpu_seconds"])
    assert 2.5 < seconds[1] - seconds[0] < 4.5


def test_the_time_of_workers_that_were_killed_counts(hpckit):
    """Nobody waits for them then: their own last word counts."""
    hpckit.job("""
        import time
        from hpckit import farm

        @farm(max_failures=1)
        def burn(n: int = 0):
            end = time.thread_time() + 2.0
            while n < 2 and time.thread_time() < end:
                pass
            if n == 2:
                raise ValueError
            time.sleep(3600 if n > 2 else 0)
    """)
    hpckit("run", "job.py", "n=range(5)", "--workers", 1)
    assert hpckit.manifest().state == "failed"
    assert hpckit.manifest().usage["cpu_seconds"] >= 4


def test_what_a_command_uses_counts(hpckit):
    hpckit.job("import sys\nsum(range(int(sys.argv[1])))\n", "burn.py")
    hpckit.job(
        'command = "python3 {script} {n}"\n[params]\nn = 10_000_000\n'
        'script = { type = "path", default = "burn.py" }\n',
        "burn.toml",
    )
    assert hpckit("run", "burn.toml", "repeat=4").code == 0
    assert hpckit.manifest().usage["cpu_seconds"] > 0.4
