"""The fake Slurm does what the real one does: both are asked."""

from __future__ import annotations

import os
import re

import pytest
from fakes.asking import SCRIPT, USER, ends, held, printed, run, shown

# What sbatch reads.

DIRECTIVES = {
    r"--job-name=a\b": ("ab", "(null)"),
    r'--job-name="a\\b\"c\d"': (r'a\b"cd', "(null)"),
    "--job-name='a\"b\\c'": ('a"bc', "(null)"),
    '--job-name=a"b c"d --comment x#y': ("ab cd", "x"),
    r'--job-name=a\#b --comment="c#d \#"': ("a#b", "c#d #"),
    "--job-name=ab#c --comment=x": ("ab", "(null)"),
    "--job-name=ab #c --comment=x": ("ab", "(null)"),
    '-J ab --comm "x y"': ("ab", "x y"),
    '--job-name=a --job-name=b --comment="$HOME"': ("b", "$HOME"),
    "--job-name=a --comment=": ("a", ""),
}


@pytest.mark.parametrize("line", DIRECTIVES)
def test_directives(both, line):
    job = held(both, text=f"{SCRIPT}\n# More:\n#SBATCH {line}\ntrue\n#SBATCH --comment=late")
    assert shown(both, job, "%j|%k") == ["|".join(DIRECTIVES[line])]


def test_the_command_line_wins_over_variables_and_those_over_the_script(both):
    path = both.directory / "job.sh"
    path.write_text(f"{SCRIPT}#SBATCH -J script -p short --time=1 --requeue\n")
    env = {"SBATCH_JOB_NAME": "variable", "SBATCH_TIMELIMIT": "3", "SBATCH_PARTITION": "spare"}
    argv = ["sbatch", "--parsable", "--hold", "--time=1:30:00", "--partition=main", "job.sh"]
    both.submitted.append(run(both, *argv, env=env).stdout.strip())
    assert shown(both, both.submitted[0], "%j %P %l") == ["variable main 1:30:00"]


def test_a_script_is_copied_with_its_arguments_and_its_folder(both):
    folder = both.directory / "folder"
    folder.mkdir()
    text = f"{SCRIPT}#SBATCH -o %x-%j.log\npwd\nprintf '[%s]' \"$@\" $SLURM_SUBMIT_DIR\n"
    path = both.directory / "job.sh"
    path.write_text(text)
    argv = ["--chdir", str(folder), "--hold", "-Jnamed", str(path), "a b", "--time=nope"]
    job = both("sbatch", "--parsable", *argv).strip()
    both.submitted.append(job)
    path.write_text(f"{SCRIPT}echo changed\n")
    both("scontrol", "release", job)
    assert both.wait(job) == "COMPLETED"
    said = (folder / f"named-{job}.log").read_text()
    assert said == f"{folder}\n[a b][--time=nope][{both.directory}]"


def test_scripts_from_the_command_line_and_from_stdin(both):
    wrapped = both("sbatch", "--parsable", "--wrap", "echo wrapped").strip()
    piped = run(both, "sbatch", "--parsable", input=f"{SCRIPT}echo piped\n").stdout.strip()
    both.submitted += [wrapped, piped]
    assert {both.wait(wrapped), both.wait(piped)} == {"COMPLETED"}
    assert (both.output(wrapped), both.output(piped)) == ("wrapped\n", "piped\n")
    names = [["wrap"], ["sbatch"]]
    both.wait_for(lambda: [both.sacct(job, "JobName") for job in (wrapped, piped)] == names)


def test_test_only_queues_nothing(both):
    (both.directory / "job.sh").write_text(SCRIPT)
    answer = run(both, "sbatch", "--parsable", "--test-only", "-n2", "-pshort", "job.sh")
    when, where = r"to start at \S+T\S+", r"on nodes \S+ in partition short\n"
    match = re.fullmatch(rf"sbatch: Job (\d+) {when} using 2 processors {where}", answer.stderr)
    assert match
    assert (answer.stdout, answer.returncode) == ("", 0)
    assert run(both, "squeue", "-j", match[1]).returncode == 1


EXPORTS = {"ALL,C=7": ("1", "2", "7"), "NONE": ("", "", ""), "A,C=7": ("1", "", "7")}


@pytest.mark.parametrize("export", EXPORTS)
def test_what_is_exported(both, export):
    both.env |= {"A": "1", "B": "2"}
    job = both.sbatch('echo "$A,$B,$C,$SLURM_JOB_ID"', f"--export={export}")
    assert both.wait(job) == "COMPLETED"
    assert both.output(job) == f"{','.join(EXPORTS[export])},{job}\n"


# Arrays.


def test_an_arrays_elements(both):
    text = (
        "echo $SLURM_ARRAY_JOB_ID $SLURM_ARRAY_TASK_ID $SLURM_ARRAY_TASK_COUNT "
        "$SLURM_ARRAY_TASK_MIN $SLURM_ARRAY_TASK_MAX $SLURM_ARRAY_TASK_STEP $SLURM_JOB_ID "
        "${SLURM_RESTART_COUNT-unset}; exit $SLURM_ARRAY_TASK_ID"
    )
    job = both.sbatch(text, "--array=0-5:2,7", "-o", "%A-%3a-%j-%%.log")
    states = {0: "COMPLETED|0:0", 2: "FAILED|2:0", 4: "FAILED|4:0", 7: "FAILED|7:0"}
    rows = {f"{job}_{i}{step}": states[i] for i in states for step in ("", ".batch")}
    ends(both, job, rows, "-P")
    raw = dict(row.split("|") for row in both.sacct(job, "JobID,JobIDRaw"))
    assert raw[f"{job}_7"] == job
    for index in states:
        number = raw[f"{job}_{index}"]
        said = (both.directory / f"{job}-{index:03}-{number}-%.log").read_text()
        assert said == f"{job} {index} 4 0 7 2 {number} unset\n"


def test_an_array_in_the_queue(both):
    job = held(both, "--array=0-9%2")
    assert shown(both, job, "%i|%A|%F|%K|%T|%t|%r|%M|%u|%N|") == [
        f"{job}_[0-9%2]|{job}|{job}|0-9%2|PENDING|PD|JobHeldUser|0:00|{USER}||"
    ]
    singles = [f"{job}_{index}|{index}" for index in range(10)]
    assert sorted(shown(both, job, "%i|%K", "-r")) == singles
    assert shown(both, f"{job}_3", "%i %K", "--array") == [f"{job}_3 3"]
    both("scancel", f"{job}_4")
    assert shown(both, job, "%K", "-t", "PD") == ["0-3,5-9%2"]
    both.wait_for(lambda: both.sacct(job, "JobID"))
    assert f"{job}_[0-3,5-9%2]|PENDING|None assigned|Unknown" in both.sacct(
        job, "JobID,State,NodeList,Start"
    )
    both("scancel", job)
    pattern = re.escape(f"{job}_[0-3,5-9%2]|{job}|CANCELLED by {os.getuid()}|0:0|None|") + r"\S+T"
    fields = "JobID,JobIDRaw,State,ExitCode,Start,End"
    both.wait_for(lambda: re.match(pattern, both.sacct(job, fields)[-1]))


LONG = "1,4,5,9,11-13,20,22,25,28,30,33,36,39,42,45,48,51,54,57,60,63,66,69,72,75,78,81%3"
WHOLE = LONG.replace("4,5", "4-5", 1)


def test_long_lists_of_indices_are_cut(both):
    job = held(both, f"--array={LONG}")
    cut = "1,4-5,9,11-13,20,22,25,28,30,33,36,39,42,45,48,51,54,57,60,6...%3"
    assert shown(both, job, "%i %K") == [f"{f'{job}_[{WHOLE}'[:31]} {cut}"]
    for length, text in {0: WHOLE, 10: "1,4-5,...%3", 20: "1,4-5,9,11-13,20...%3"}.items():
        env = {"SLURM_BITSTR_LEN": str(length)}
        assert shown(both, job, "%i %K", env=env) == [f"{job}_[{text}] {text}"]


INDICES = {
    "0-10:2": "0,2,4,6,8,10",
    "0-12:2": "0-12:2",
    "1,4,7,10,13,16": "1-16:3",
    "0-80:20": "0,20,40,60,80",
    "[1-3]%1": "1-3%1",
    "3,1,2-8:3": "1-3,5,8",
}


def test_how_indices_are_written(both):
    jobs = {held(both, f"--array={given}"): told for given, told in INDICES.items()}
    rows = shown(both, ",".join(jobs), "%i %K")
    assert sorted(rows) == sorted(f"{job}_[{told}] {told}" for job, told in jobs.items())


def test_formats(both):
    job = held(both, "-J", "long name", "--comment=c|d", "--time=1-0")
    assert shown(both, job, "<%.9i|%12i|%.4j|%4j|%l|%k>") == [
        f"<{job:>9}|{job:<12}|long|long|1-00:00:00|c|d>"
    ]
    lines = run(both, "squeue", "-j", job).stdout.splitlines()
    assert lines[0] == (
        "             JOBID PARTITION     NAME     USER ST       TIME  NODES NODELIST(REASON)"
    )
    assert lines[1] == f"{job:>18}      main long nam {USER:>8} PD       0:00      1 (JobHeldUser)"


# How jobs end.


@pytest.mark.parametrize(
    ("text", "state", "job", "batch"),
    [
        ("true", "COMPLETED", "0:0", "COMPLETED|0:0"),
        ("exit 3", "FAILED", "3:0", "FAILED|3:0"),
        ("kill -USR1 $$", "FAILED", "0:10", "CANCELLED|0:10"),
        (f"{SCRIPT}#SBATCH -o nowhere/x\n", "FAILED", "0:53", "CANCELLED|0:53"),
        ("#!/nowhere/sh\n", "FAILED", "2:0", "FAILED|2:0"),
    ],
)
def test_how_a_script_ends(both, text, state, job, batch):
    number = both.sbatch(text)
    ends(both, number, {number: f"{state}|{job}", f"{number}.batch": batch}, "-P")


@pytest.mark.parametrize(
    ("reaction", "batch"),
    [("exit 5", "FAILED|5:0"), ("exit 0", "COMPLETED|0:0"), ("true", "CANCELLED|0:9")],
)
def test_a_job_is_cancelled(both, reaction, batch):
    text = 'for s in CONT TERM; do trap "echo child $s" $s; done; while :; do sleep 0.1; done'
    child = both.directory / "child.sh"
    child.write_text(text)
    job = both.sbatch(
        f"trap 'echo shell TERM; {reaction}' TERM\nbash {child} &\nsetsid sleep 77 &\n"
        "echo $! >sleeper; echo ready\nwhile :; do wait; done"
    )
    both.wait_for(lambda: "ready" in printed(both, job))
    both("scancel", job)
    user = os.getuid()
    ends(both, job, {job: f"CANCELLED by {user}|0:0", f"{job}.batch": batch}, "-P")
    said = both.output(job)
    assert f": error: *** JOB {job} ON n" in said
    assert "shell TERM" in said
    assert "child" not in said


def test_a_signal_to_the_script(both):
    job = both.sbatch("trap 'echo got; exit 4' USR1; touch ready; while :; do sleep 0.1; done")
    both.wait_for((both.directory / "ready").exists)
    both("scancel", "--signal=TERM", job)
    both("scancel", "--batch", "--signal=USR1", job)
    ends(both, job, {job: "FAILED|4:0"})
    assert both.output(job) == "got\n"


def test_holding_and_releasing(both):
    job = held(both)
    assert shown(both, job, "%T %r %R") == ["PENDING JobHeldUser (JobHeldUser)"]
    answer = run(both, "scontrol", "requeue", job)
    assert (answer.returncode, answer.stderr) == (1, f"Job is pending execution for job {job}\n")
    both("scontrol", "release", job)
    assert both.wait(job) == "COMPLETED"
    array = held(both, "--array=0-2")
    answer = run(both, "scontrol", "requeue", array)
    said = f"{array}_0-2: Job is pending execution\n"
    assert (answer.returncode, answer.stderr) == (1, said)


def test_dependencies(both):
    first = held(both, "--array=0-1", text="exit $SLURM_ARRAY_TASK_ID")
    kinds = {
        "any": f"afterany:{first}",
        "ok": f"afterok:{first}_0",
        "not": f"afternotok:{first}",
        "either": f"afterok:{first}_1?afternotok:{first}_1",
        "unknown": "afterok:99999999",
    }
    jobs = {name: both.sbatch("true", "-d", text) for name, text in kinds.items()}
    never = both.sbatch("true", f"-dafterok:{first}")
    killed = both.sbatch("true", f"--dependency=afterok:{first}", "--kill-on-invalid-dep=yes")
    assert shown(both, jobs["any"], "%r|%E") == [f"Dependency|afterany:{first}_*(unfulfilled)"]
    assert shown(both, never, "%r|%E") == [f"Dependency|afterok:{first}_*(unfulfilled)"]
    both("scontrol", "release", first)
    assert {name: both.wait(job) for name, job in jobs.items()} == dict.fromkeys(jobs, "COMPLETED")
    both.wait_for(lambda: shown(both, never, "%r") == ["DependencyNeverSatisfied"])
    ends(both, killed, {killed: "CANCELLED|0:0"})


def test_what_else_the_accounting_says(both):
    job = held(both, "--time=1:30", "-n2", "--mem=100", "--comment=lost", "-J", 'a "b"')
    fields = "JobName,AllocCPUS,ReqMem,Timelimit,TimelimitRaw,Comment,Partition,DerivedExitCode"
    both.wait_for(lambda: both.sacct(job, "JobID"))
    assert both.sacct(job, fields) == ["a `b`|2|100M|00:02:00|2||main|0:0"]
    both("scontrol", "release", job)
    ends(both, job, {job: "COMPLETED|0:0", f"{job}.batch": "COMPLETED|0:0"}, "-P")
    fields = "Elapsed,NodeList,MaxRSS,TotalCPU,Start"
    patterns = [r"00:00:0\d", "n[1-4]", r"(\d+K)?", r"00:0\d[.:]\d+", r"\d+-\d\d-\d\dT[\d:]{8}"]
    for row in both.sacct(job, fields, "-P"):
        assert re.fullmatch(r"\|".join(patterns), row)
    assert both.sacct(job, "MaxRSS") == [""]


def test_the_configuration(both):
    said = both("scontrol", "show", "config")
    for pattern in (
        r"^MaxArraySize            = 1001$",
        r"^SLURM_VERSION           = 22\.05\.8$",
        r"^ClusterName             = \w+$",
        r"^AccountingStorageType   = accounting_storage/slurmdbd$",
    ):
        assert re.search(pattern, said, re.MULTILINE)
    assert re.fullmatch(r"Slurmctld\(primary\) at \S+ is UP\n", both("scontrol", "ping"))
    nodes = both("sinfo", "--noheader", "--Node", "--format=%P|%l|%N|%c|%m").splitlines()
    assert [sorted(node for node in nodes if f"|{name}|" in node) for name in ("n1", "n4")] == [
        [
            "main*|1:00:00|n1|4|2000",
            "short|2:00|n1|4|2000",
            "spare|1:00:00|n1|4|2000",
        ],
        ["main*|1:00:00|n4|4|2000", "spare|1:00:00|n4|4|2000"],
    ]
