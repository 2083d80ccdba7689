"""Ranks on this machine: how their launcher is started."""

from __future__ import annotations

import stat

from hpckit.store import rundir
from hpckit.store.progress import silent
from hpckit.submit.local import STARTS, run_ranks

LAUNCHER = """#!/bin/sh
echo started >> {log}
[ "$(wc -l < {log})" -gt {failures} ] && exec echo "rank 0 prints"
echo "{said}" >&2
exit 213
"""
NOT_STARTED = "The PMIx server's listener thread failed to start. We cannot"


def launched(tmp_path, failures, said):
    """Run ranks by a launcher that fails some times; return what came of it, and how often."""
    log, launcher, printed = tmp_path / "log", tmp_path / "mpiexec", []
    launcher.write_text(LAUNCHER.format(log=log, failures=failures, said=said))
    launcher.chmod(launcher.stat().st_mode | stat.S_IXUSR)
    run = rundir.create(tmp_path / "runs", "job")
    code, last = run_ranks(run, [str(launcher)], 2, report=silent, echo=printed.append)
    return code, last, printed, len(log.read_text().splitlines())


def test_a_launcher_that_started_no_rank_is_asked_again(tmp_path):
    assert launched(tmp_path, 2, NOT_STARTED) == (0, [], ["rank 0 prints"], 3)


def test_but_not_for_ever(tmp_path):
    assert launched(tmp_path, 99, NOT_STARTED) == (213, [NOT_STARTED], [], STARTS)


def test_any_other_failure_is_one(tmp_path):
    assert launched(tmp_path, 1, "another") == (213, ["another"], [], 1)
