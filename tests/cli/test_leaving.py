"""How hpckit ends when a task has left a thread behind."""

from __future__ import annotations

import pytest

JOB = """
    import threading, time
    from hpckit import farm

    @farm
    def left(n: int = 0):
        threading.Thread(target=time.sleep, args=(3600,)).start()
        return n
"""


@pytest.mark.parametrize("engine", ["serial", "threads", "processes"])
def test_a_thread_that_a_task_left_does_not_hold_hpckit(hpckit, engine):
    hpckit.job(JOB)
    ended = hpckit("run", "job.py", "--engine", engine)
    assert ended.code == 0
    assert ended.stdout.splitlines()[-1].startswith("results: ")
    hpckit.assert_all_gone()
