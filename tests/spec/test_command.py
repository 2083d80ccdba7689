from __future__ import annotations

from pathlib import Path

import pytest

from hpckit.errors import SpecError
from hpckit.spec.command import Command, CsvPicker, Hdf5Picker, RegexPicker, placeholders
from hpckit.spec.job import Job
from hpckit.spec.sweep import Sweep
from hpckit.spec.toml import command_job

MELT = r"""
command = "lmp -in {input} -var T {T} --json '{{\"n\": {n}}}' {z} {hot}"
keep = ["dump.*", "sub/log"]
seed = 4
doc = "Melt."
[resources]
walltime = "30m"
mem = 500
[params]
T = 3.0
hot = false
input = {type = "path", default = "melt.lmp"}
n = {type = "int", choices = [1, 2]}
z = {type = "complex", default = "1+2j"}
[results]
energy = {regex = 'E = (\S+)', type = "float", which = "last"}
msd = {csv = "msd.csv", column = "msd"}
u = {hdf5 = "out.h5", dataset = "/u"}
[attrs.energy]
units = "K"
"""
PARAMS = {"T": "3.0", "s": "'a'", "p": "{type = 'path'}"}


def job(text: str, source: Path = Path("/jobs/melt.toml")) -> Job:
    return command_job(text, source)


def commanded(command: str) -> str:
    """Return a job of a command with those of `PARAMS` that stand in it."""
    lines = [f"{name} = {value}" for name, value in PARAMS.items() if f"{{{name}}}" in command]
    return "\n".join([f"command = '''{command}'''", "[params]", *lines])


def refused(text: str) -> str:
    with pytest.raises(SpecError) as raised:
        job(text)
    message = str(raised.value)
    assert "\n" not in message
    assert message.startswith("/jobs/melt.toml:")
    return message.removeprefix("/jobs/melt.toml:").lstrip()


def test_a_toml_job(tmp_path: Path) -> None:
    (tmp_path / "melt.lmp").touch()
    melt = job(MELT, tmp_path / "melt.toml")
    assert (melt.name, melt.kind, melt.seed, melt.doc) == ("melt", "farm", 4, "Melt.")
    assert not melt.takes_context
    assert [(p.name, p.type, p.required) for p in melt.params] == [
        ("T", float, False),
        ("hot", bool, False),
        ("input", Path, False),
        ("n", int, True),
        ("z", complex, False),
    ]
    assert str(melt.resources.mem) == "500M"
    assert melt.attrs == {"energy": {"units": "K"}}
    assert isinstance(melt.body, Command)
    assert melt.body.keep == ("dump.*", "sub/log")
    assert melt.body.results == {
        "energy": RegexPicker(regex=r"E = (\S+)", type="float", which="last"),
        "msd": CsvPicker(csv="msd.csv", column="msd"),
        "u": Hdf5Picker(hdf5="out.h5", dataset="/u"),
    }
    point = Sweep.from_args(melt, ["n=2"])[0]
    assert melt.body.fill(point) == [
        *("lmp", "-in", str(tmp_path / "melt.lmp"), "-var", "T", "3.0"),
        *("--json", '{"n": 2}', "1+2j", "false"),
    ]


def test_a_value_is_never_more_than_one_argument() -> None:
    command = Command(argv=("echo", "x={s}", "{s}"))
    evil = "a b; rm -rf / $(x) '{s}' \n"
    assert command.fill({"s": evil}) == ["echo", f"x={evil}", evil]


def test_floats_are_written_to_the_last_digit() -> None:
    assert Command(argv=("{x}",)).fill({"x": 0.1 + 0.2}) == [repr(0.1 + 0.2)]


def test_placeholders_and_braces() -> None:
    assert placeholders("{a}{{b}}{c}") == ["a", "c"]
    with pytest.raises(ValueError, match="a lone '}' in 'a}'"):
        placeholders("a}")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("seed", "sed", "sed: unknown key; a command's job file has command, name, "),
        ("seed = 4", "seed = -1", "seed: -1 is not allowed"),
        ("seed = 4", "name = 'a/b'", "name: 'a/b' is not allowed"),
        ('doc = "Melt."', "doc = 3", "doc: 3 is not allowed; text in quotes"),
        ("mem = 500", 'mem = "4 potatoes"', "resources.mem: '4 potatoes' is not an amount"),
        ("mem = 500", "mm = 1", "resources.mm: unknown key; [resources] has nodes, "),
        ("mem = 500", "ntasks = 0", "resources.ntasks: 0 is not allowed; a whole number"),
        ("T = 3.0", "T = [1]", "params.T: [1] is not allowed; a number, true, false or text"),
        ("T = 3.0", "T = {typ = 'int'}", "params.T.typ: unknown key; a parameter has type, "),
        ("T = 3.0", "T = {type = 'number'}", "params.T.type: 'number' is not allowed; one of"),
        ("T = 3.0", "T = {}", "params.T: has no type; write a value"),
        ("T = 3.0", "T = {type = 'int', default = 2.5}", "params.T: the default 2.5 is not"),
        ("T = 3.0", "T = 3.0\nx = 1", "params.x: {x} does not stand in the command"),
        ("T = 3.0", "T = 3.0\ntask = 1", "params.task: the name is reserved"),
        ("T = 3.0", "T = 3.0\nseed = 1", "params.seed: the name is hpckit's: {seed} stands for"),
        ("T = 3.0", "T = 3.0\nindex = 1", "params.index: the name is hpckit's: {index} stands"),
        ("T = 3.0", "T = 3.0\n'a-b' = 1", "params.a-b: a parameter's name is letters"),
        ("[1, 2]", "[1, 'a']", "params.n: 'a' is not allowed; must be a whole number"),
        ("[1, 2]", "[]", "params.n: choices are at least one value"),
        ("last", "middle", "results.energy.which: 'middle' is not 'first' or 'last'"),
        ("which", "wich", "results.energy.wich: unknown key; the regex result has regex, type,"),
        (r"(\S+)", r"(\S+", r"results.energy.regex: 'E = (\\S+' is no regular expression: "),
        ('"msd.csv"', '"../msd.csv"', "results.msd: '../msd.csv' is not allowed; a path within"),
        ('column = "msd"', 'colum = "x"', "results.msd.colum: unknown key; the csv result has"),
        (', dataset = "/u"', "", "results.u.dataset: is missing; the hdf5 result needs it"),
        ("u = {hdf5", "T = {hdf5", "results.T: a result's name is letters"),
        ('{csv = "msd.csv", column = "msd"}', "3", "results.msd: 3 is not allowed; one of {regex"),
        ('"dump.*"', '"/etc/*"', "keep: '/etc/*' is not allowed; a path within the scratch"),
        ('["dump.*", "sub/log"]', '"dump.*"', "keep: 'dump.*' is not allowed; a list in brackets"),
        (
            "[attrs.energy]",
            "[attrs.enrgy]",
            "attrs.enrgy: unknown name; the job has energy, msd, u,",
        ),
        ('units = "K"', "units = []", "attrs.energy.units: [] is not allowed"),
        (
            "{T}",
            "{t}",
            "command: {t} is no parameter; [params] has T, hot, input, n and z, and hpckit seed and"
            " index; did you mean 'T'?; a brace",
        ),
        ("{T}", "{T.real}", "command: {T.real} is no parameter"),
        ("{T}", "{T", "a lone '{' in '{T'"),
        ("lmp", "'lmp", "cannot be split: No closing quotation"),
    ],
)
def test_what_is_wrong_is_named_by_its_key(old: str, new: str, message: str) -> None:
    assert old in MELT
    found = refused(MELT.replace(old, new, 1))
    assert message in found
    assert found.startswith(message.partition(":")[0].partition(" ")[0]) or "command" in found


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "command: is missing; a TOML job has one"),
        ("command = 3", "command: 3 is not allowed; text in quotes"),
        ("command = ''", "command: is empty; it names a program and its arguments"),
        ("command = 'x'\nresources = 3", "resources: 3 is not allowed; a table, [resources]"),
        ("command = 'x'\nparams = []", "params: [] is not allowed; a table, [params]"),
    ],
)
def test_tables_and_text_of_the_wrong_kind(text: str, message: str) -> None:
    assert refused(text).startswith(message)


@pytest.mark.parametrize(
    "command",
    [
        "sh -c 'echo {T}' {s}",
        "/bin/bash -ec 'echo {T}' {s}",
        "srun bash -o pipefail -c 'x {T}' {s}",
        "bash --norc -c '{T}' {s}",
        "bash -c{T} {s}",
        "env A=1 dash -c 'x {T}' {s}",
        "zsh -c '{p}' {T} {s}",
        "python3.11 -c 'print({T})' {s}",
        "python -W ignore -c 'print({T})' {s}",
        "perl -ne 'x{T}' {s}",
        "env -S 'prog {T}' {s}",
        "sh -c 'x {T} {seed}' {s}",
        "sh -c 'x {index}' sh {T} {s}",
        "node --eval 'f({T})' {s}",
        "bash {s} {T}",
        "python {s} {T}",
    ],
)
def test_a_value_that_would_be_code_is_refused(command: str) -> None:
    found = refused(commanded(command))
    assert found.startswith("command: {")
    assert "would be run as code by" in found
    assert "pass it as an argument of its own" in found


def test_the_message_shows_the_positional_argument() -> None:
    found = refused(commanded("sh -c 'echo {T}' {s}"))
    assert found.endswith("""sh -c '… "$1"' sh {T}""")


def test_a_value_does_not_choose_the_program() -> None:
    assert refused(commanded("{s} {T}")).startswith(
        "command: {s} would choose the program that runs"
    )


@pytest.mark.parametrize(
    "command",
    [
        "sh -c 'x $1' sh {T} {s}",
        "bash {p} {T} {s}",
        "python {p} {T} -c {s}",
        "env X={s} prog {T}",
        "{p} {T} {s}",
        "srun bash {p} -c {s} {T}",
        "awk -v s={s} -v T={T} -f {p}",
        "gawk -vs={s} -vT={T} 'BEGIN {{print s}}'",
        "sh -c 'prog -r $1' sh {s} {T}",
        "sh -c 'x $1' sh {s} {T}",
        "prog --seed {T} -r {index} --name {s}",
        "cp -r {p} {s}{T}",
        "make -C {p} -j {index}",
        "find {p}/data -size {T}",
        "bash {seed} {T} {s}",
    ],
)
def test_a_value_that_is_an_argument_is_accepted(command: str) -> None:
    body = job(commanded(command)).body
    assert isinstance(body, Command)
    filled = body.fill({"s": "$(x)", "T": 1.0, "p": Path("/p"), "seed": 1, "index": 0})
    assert sum("$(x)" in argument for argument in filled) == ("{s}" in command)


@pytest.mark.parametrize(
    "command",
    [
        "awk {s}",
        "gawk -f {s}",
        "awk -F , '{s}'",
        "awk -v {s}",
        "srun sed 's/x/{s}/'",
        "sed p {s}",
        "ssh host {s}",
        "ssh host cat {p}",
        "find . {s}",
        "xargs {s}",
        "make X={s}",
        "octave --eval {s}",
        "php -r {s}",
        "R -e {s}",
        "gnuplot -e 'f={s}'",
        "gnuplot -e 'plot {p}'",
        "matlab -batch {s}",
        "wolframscript -code {s}",
        "ipython -c {s}",
        "python3-dbg -c {s}",
        "mysql --execute={s}",
        "prog -e{s}",
        "prog -c {s}",
    ],
)
def test_text_where_other_programs_expect_code_is_refused(command: str) -> None:
    found = refused(commanded(command))
    assert found.startswith("command: {")
    assert "would be run as code by" in found


@pytest.mark.parametrize("command", ["prog -c {s}", "awk {s}", "bash -c 'x {s}'"])
def test_what_a_refusal_advises_is_accepted(command: str) -> None:
    job(commanded(refused(commanded(command)).rpartition(": ")[2]))


def test_choices_are_no_free_text() -> None:
    job("command = 'awk {s}'\n[params]\ns = {choices = ['a', 'b']}")


def test_seed_and_index_need_no_parameter() -> None:
    body = job('command = "prog -seed {seed} -o out.{index}"').body
    assert isinstance(body, Command)
    assert body.fill({"seed": 5, "index": 0}) == ["prog", "-seed", "5", "-o", "out.0"]


@pytest.mark.parametrize(
    ("program", "argument"),
    [
        ("prog", "prog"),
        ("/opt/prog", "/opt/prog"),
        ("./bin/prog", "/a{b}/./bin/prog"),
        ("bin/prog-{n}", "/a{b}/bin/prog-2"),
        ("{n}/prog", "/a{b}/2/prog"),
        ("{p}/prog", "/p/prog"),
        ("~/prog", "/home/{me}/prog"),
    ],
)
def test_a_relative_program_starts_at_the_job_file(
    program: str, argument: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", "/home/{me}")
    text = f"command = '{program} {{n}}'\n[params]\nn = 2\np = {{type = 'path'}}"
    body = job(text, Path("/a{b}/job.toml")).body
    assert isinstance(body, Command)
    assert body.fill({"n": 2, "p": Path("/p")}) == [argument, "2"]
