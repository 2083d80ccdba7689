"""hpckit status --follow: shown anew until the run has ended."""

from __future__ import annotations

import os
import pty
import subprocess
import sys

NAP = """
    import time
    from hpckit import farm

    @farm
    def nap(i: int = 0):
        time.sleep(0.2)
        return {"y": i + 1}
"""


def on_a_terminal(directory, *arguments: str) -> str:
    """Return what a command shows on a terminal, until it ends."""
    ours, theirs = pty.openpty()
    argv = [sys.executable, "-m", "hpckit", *arguments]
    with subprocess.Popen(argv, cwd=directory, stdout=theirs, stdin=subprocess.DEVNULL) as process:
        os.close(theirs)
        shown = b""
        while True:
            try:
                got = os.read(ours, 4096)
            except OSError:
                # What a pseudo-terminal's other end gets from Linux when it is closed.
                got = b""
            if not got:
                break
            shown += got
    os.close(ours)
    assert process.returncode == 0
    return shown.decode()


def test_a_terminal_shows_it_in_place_until_it_has_ended(hpckit):
    hpckit.job(NAP)
    with hpckit.start("run", "job.py", "i=range(1,21)", "--workers", 1) as driver:
        hpckit.until(
            lambda: hpckit.run_dirs() and (hpckit.last() / "progress.json").exists(), "runs"
        )
        shown = on_a_terminal(hpckit.directory, "status", "last", "--follow")
        driver.communicate(timeout=60)
    first, *others = shown.split("\x1b[J")
    assert "running" in first
    assert others
    assert "completed" in others[-1]
    assert "20 of 20 done" in others[-1]
    assert "running" not in others[-1]


def test_a_run_that_has_ended_is_shown_once(hpckit):
    hpckit.job(NAP)
    hpckit("run", "job.py")
    ended = hpckit("status", "last", "--follow")
    assert ended.code == 0
    assert ended.stdout.count("state") == 1


def test_scripts_ask_for_json_themselves(hpckit):
    ended = hpckit("status", "last", "--follow", "--json")
    assert ended.code == 2
    assert "--follow is for people" in ended.stderr
