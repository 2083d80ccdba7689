"""What the tests ask of a cluster, be it a fake one."""

from __future__ import annotations

import os
import pwd
import subprocess
import time

USER = pwd.getpwuid(os.getuid()).pw_name
FAILED = "sbatch: error: Batch job submission failed: "
SCRIPT = "#!/bin/bash\n"


def run(slurm, *argv, input="", env=()):
    """Run a command, whatever comes of it."""
    return subprocess.run(
        argv,
        cwd=slurm.directory,
        env={**slurm.env, **dict(env)},
        capture_output=True,
        text=True,
        timeout=60,
        input=input,
    )


def held(slurm, *options, text="true"):
    return slurm.sbatch(text, "--hold", *options)


def shown(slurm, job, form, *options, env=()):
    ended = run(slurm, "squeue", "-h", "-j", job, "-o", form, *options, env=env)
    assert (ended.returncode, ended.stderr) == (0, "")
    return ended.stdout.splitlines()


def printed(slurm, job):
    """Return what a job has printed so far."""
    path = slurm.directory / f"slurm-{job}.out"
    return path.read_text() if path.exists() else ""


def ends(slurm, job, expected, option="-X"):
    """Wait until the accounting, which lags, has the states and exit codes; tell what it has."""
    end = time.monotonic() + 30
    while True:
        rows = slurm.sacct(job, "JobID,State,ExitCode", option)
        found = dict(row.split("|", 1) for row in rows)
        if found == expected or time.monotonic() > end:
            assert found == expected
            return
        time.sleep(0.1)
