"""The fake Slurm refuses what the real one refuses, in its words: both are asked."""

from __future__ import annotations

import pytest
from fakes.asking import FAILED, SCRIPT, run

TRY = 'Try "sbatch --help" for more information\n'
REFUSALS = {
    "partition": (
        ["-p", "nope"],
        f"sbatch: error: invalid partition specified: nope\n{FAILED}Invalid partition name "
        "specified\n",
        1,
    ),
    "partition of a test": (
        ["-pnope", "--test-only"],
        "sbatch: error: invalid partition specified: nope\nallocation failure: Invalid partition "
        "name specified\n",
        1,
    ),
    "account": (
        ["--account=nope"],
        f"{FAILED}Invalid account or account/partition combination specified\n",
        1,
    ),
    "array size": (["--array=0-1001"], f"{FAILED}Invalid job array specification\n", 1),
    "array": (["--array=5-3"], f"{FAILED}Invalid job array specification\n", 1),
    "number of jobs": (
        ["--array=0-999"],
        f"sbatch: error: AssocMaxSubmitJobLimit\n{FAILED}Job violates accounting/QOS policy (job "
        "submit limit, user's size and/or time limits)\n",
        1,
    ),
    "dependency": (["--dependency=afterok:x"], f"{FAILED}Job dependency problem\n", 1),
    "memory": (
        ["--mem=99G"],
        "sbatch: error: Memory specification can not be satisfied\n"
        f"{FAILED}Requested node configuration is not available\n",
        1,
    ),
    "time": (["--time=soon"], "sbatch: error: Invalid --time specification\n", 255),
    "signal": (["--signal=B:NO@9"], "sbatch: error: Invalid --signal specification\n", 255),
    "option": (["--nope=1"], f"sbatch: unrecognized option '--nope=1'\n{TRY}", 255),
    "value": (["--hold=1"], f"sbatch: option '--hold' doesn't allow an argument\n{TRY}", 255),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_what_sbatch_refuses(both, name):
    options, said, status = REFUSALS[name]
    (both.directory / "job.sh").write_text(SCRIPT)
    answer = run(both, "sbatch", *options, "job.sh")
    assert (answer.stdout, answer.stderr, answer.returncode) == ("", said, status)


SCRIPTS = {
    "": "sbatch: error: Batch script is empty!\n",
    "true\n": "sbatch: error: This does not look like a batch script.  The first\n"
    "sbatch: error: line must start with #! followed by the path to an interpreter.\n"
    "sbatch: error: For instance: #!/bin/sh\n",
    f"{SCRIPT}#SBATCH --comment=a\\ b\n": "sbatch: error: Invalid directive found in batch script: "
    "b\n",
    f'{SCRIPT}#SBATCH --comment="a\n': 'sbatch: fatal: job.sh: line 2: Unmatched `"` in '
    '[--comment="a]\n',
}


@pytest.mark.parametrize("text", SCRIPTS)
def test_what_is_no_script(both, text):
    (both.directory / "job.sh").write_text(text)
    answer = run(both, "sbatch", "job.sh")
    assert (answer.stdout, answer.stderr) == ("", SCRIPTS[text])
    assert answer.returncode in (1, 255)


NOBODY = "Invalid job id specified"
UNKNOWN = {
    "squeue -j 9999999": (1, f"slurm_load_jobs error: {NOBODY}\n"),
    "squeue -h -j 9999999,9999998": (0, ""),
    "squeue -j x": (1, "squeue: error: Invalid job id: x\n"),
    "squeue --nope": (
        1,
        "squeue: unrecognized option '--nope'\nTry \"squeue --help\" for more information\n",
    ),
    "sacct -n -j 9999999": (0, ""),
    "sacct -j x": (1, "sacct: fatal: Bad job/step specified: x\n"),
    "sacct -o JobID,nope": (1, 'sacct: error: Invalid field requested: "nope"\n'),
    "scancel 9999999": (0, ""),
    "scancel -Q 9999999_4": (0, ""),
    "scancel x": (1, "scancel: error: Invalid job id x\n"),
    "scancel": (1, "scancel: error: No job identification provided\n"),
    "scancel -b -s USR1 9999999": (
        1,
        f"scancel: error: Kill job error on job id 9999999: {NOBODY}\n",
    ),
    "scontrol requeue 9999999": (1, f"{NOBODY} for job 9999999\n"),
    "scontrol requeue x": (1, f"{NOBODY} for job x\n"),
    "scontrol requeue": (1, "too few arguments for keyword:requeue\n"),
    "scontrol hold 9999999": (
        1,
        f"{NOBODY} for job 9999999\nslurm_suspend error: {NOBODY}\n",
    ),
    "scontrol show job 9999999": (1, f"slurm_load_jobs error: {NOBODY}\n"),
    "scontrol nope": (1, "invalid keyword: nope\n"),
}


@pytest.mark.parametrize("line", UNKNOWN)
def test_what_is_not_known(both, line):
    answer = run(both, *line.split())
    assert (answer.returncode, answer.stderr, answer.stdout) == (*UNKNOWN[line], "")
