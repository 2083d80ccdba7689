from __future__ import annotations

import hashlib
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path

import pytest

from hpckit.errors import SpecError, UsageError
from hpckit.spec.load import load_file, load_job

GOOD = """\
from hpckit import farm

@farm(mem="500M")
def ising(task, T: float = 2.0):
    return T
"""


@pytest.fixture(autouse=True)
def _clean(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", sys.path[:])
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        if name.startswith(("hpckit_job_", "sibling")):
            del sys.modules[name]


def write(path: Path, text: str = GOOD) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    return path


def fails(tmp_path: Path, text: str, name: str = "bad.py") -> str:
    path = write(tmp_path / name, text)
    with pytest.raises(SpecError) as raised:
        load_file(path)
    message = str(raised.value)
    assert "\n" not in message
    assert message.startswith(str(path))
    return message.removeprefix(str(path))


def test_a_file_is_loaded_with_its_text_and_digest(tmp_path: Path) -> None:
    text = GOOD.replace("\n", "\r\n")
    path = tmp_path / "ising.py"
    path.write_bytes(text.encode())
    loaded = load_job("ising.py")
    assert loaded.job.name == "ising"
    assert loaded.source == path
    assert loaded.text == text
    assert loaded.sha256 == hashlib.sha256(text.encode()).hexdigest()
    assert sys.modules["hpckit_job_ising"].__file__ == str(path)


def test_a_name_is_looked_up_here_then_in_jobs(tmp_path: Path) -> None:
    write(tmp_path / "jobs" / "ising.py")
    assert load_job("ising").source == tmp_path / "jobs" / "ising.py"
    write(tmp_path / "ising.py")
    assert load_job("ising").source == tmp_path / "ising.py"
    write(tmp_path / "melt.toml", "command = 'true'")
    assert load_job("melt").job.name == "melt"


def test_a_name_is_looked_up_in_the_installed_jobs_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    installed = tmp_path / "site" / "sibling_jobs"
    installed.mkdir(parents=True)
    write(installed / "__init__.py", "")
    write(installed / "ising.py")
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    monkeypatch.setattr("hpckit.spec.load.PACKAGE", "sibling_jobs")
    assert load_job("ising").source == installed / "ising.py"
    write(tmp_path / "jobs" / "ising.py")
    assert load_job("ising").source == tmp_path / "jobs" / "ising.py"


def test_a_name_that_fits_two_files_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "melt.py")
    write(tmp_path / "melt.toml", "command = 'true'")
    with pytest.raises(UsageError, match=r"^melt: both melt.py and melt.toml are there"):
        load_job("melt")


def test_a_missing_job_says_what_was_looked_for(tmp_path: Path) -> None:
    write(tmp_path / "jobs" / "ising.py")
    with pytest.raises(UsageError) as raised:
        load_job("isng")
    assert "neither isng.py nor isng.toml is in ., in ./jobs" in str(raised.value)
    assert str(raised.value).endswith("did you mean 'ising'?")
    with pytest.raises(
        UsageError, match=r"^ising.py: no such job file; did you mean 'jobs/ising.py'"
    ):
        load_job("ising.py")
    with pytest.raises(UsageError, match=r"^gone/ising.py: no such job file"):
        load_file(Path("gone/ising.py"))
    with pytest.raises(UsageError, match=r"^./jobs|^jobs: is a directory; name the job file in it"):
        load_job("./jobs")
    with pytest.raises(UsageError, match=r"cannot be a job file: File name too long$"):
        load_job("x" * 5000)


def test_another_suffix_and_another_encoding_are_refused(tmp_path: Path) -> None:
    assert fails(tmp_path, GOOD, "job.txt") == ": a job file ends in .py or .toml, not in '.txt'"
    (tmp_path / "latin.py").write_bytes(b"x = 1\ny = '\xe9'\n")
    with pytest.raises(SpecError, match=r"latin.py:2: is not UTF-8 text; save it as UTF-8$"):
        load_job("latin.py")


def test_an_import_that_fails_is_named_with_its_line(tmp_path: Path) -> None:
    message = fails(tmp_path, "import os\n\nimport no_such_module\n")
    assert message == ":3: does not import: ModuleNotFoundError: No module named 'no_such_module'"


def test_the_line_is_the_deepest_in_the_job_file(tmp_path: Path) -> None:
    text = "import json\ndef read():\n    return json.loads('{')\n\nread()\n"
    message = fails(tmp_path, text)
    assert message.startswith(":3: does not import: JSONDecodeError: ")
    assert "decoder.py:" in message


def test_syntax_errors_have_their_line(tmp_path: Path) -> None:
    assert fails(tmp_path, "x = 1\ndef f(:\n").startswith(":2: does not import: SyntaxError: ")
    write(tmp_path / "sibling_broken.py", "x = 1\ny = (\n")
    message = fails(tmp_path, "\nimport sibling_broken\n")
    assert message.startswith(":2: does not import: SyntaxError: ")
    assert message.endswith(f"(at {tmp_path}/sibling_broken.py:2)")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("import sys\nsys.exit(3)\n", ":2: does not import: SystemExit: 3"),
        ("raise ValueError('a\\nb')\n", ":1: does not import: ValueError: a"),
        ("assert False\n", ":1: does not import: AssertionError"),
        (
            "x = 1\0\n",
            ": does not import: SyntaxError: source code string cannot contain null bytes",
        ),
    ],
)
def test_whatever_it_raises_is_one_line(tmp_path: Path, text: str, message: str) -> None:
    assert fails(tmp_path, text) == message


def test_a_decorators_error_has_the_decorators_line(tmp_path: Path) -> None:
    message = fails(tmp_path, GOOD.replace("500M", "4 potatoes"))
    assert message.startswith(":3: mem: '4 potatoes' is not an amount of memory")
    message = fails(tmp_path, GOOD.replace("T: float", "T"))
    assert message.startswith(":3: T: has no annotation")
    several = GOOD.replace('mem="500M"', '\n    mem="500M",\n    tasks=3,\n')
    assert fails(tmp_path, several).startswith(":3: tasks: unknown option; @farm has name, seed")


def test_no_job_and_two_jobs(tmp_path: Path) -> None:
    assert (
        fails(tmp_path, "")
        == ": no job in it; put @farm or @spmd (from hpckit) before one function"
    )
    second = GOOD + "\n@farm\ndef other(x: int = 1): ...\n"
    assert fails(tmp_path, second) == ": 2 jobs in it, 'ising' and 'other'; keep one a file"


def test_another_name_for_the_job_and_an_imported_job_do_not_count(tmp_path: Path) -> None:
    write(tmp_path / "sibling_job.py", GOOD.replace("ising", "imported"))
    path = write(
        tmp_path / "ising.py", "from sibling_job import imported\n" + GOOD + "again = ising\n"
    )
    assert load_file(path).job.name == "ising"
    path.write_text("from sibling_job import imported\n")
    assert load_file(path).job.name == "imported"


def test_a_copy_is_executed_as_if_it_stood_at_its_source(tmp_path: Path) -> None:
    text = "import sibling_constants\n" + GOOD.replace("return T", "raise ValueError(__file__)")
    home = tmp_path / "home"
    write(home / "sibling_constants.py", "")
    source = write(home / "ising.py", "# changed since\n" * 20)
    loaded = load_file(write(tmp_path / "run" / "job.py", text), source)
    assert loaded.source == source
    assert loaded.text == text
    assert sys.path[0] == str(home)
    with pytest.raises(ValueError, match=r"home/ising\.py$") as raised:
        loaded.job(None)
    last = traceback.extract_tb(raised.value.__traceback__)[-1]
    assert (last.filename, last.line) == (str(source), "raise ValueError(__file__)")


def test_a_job_that_does_not_load_leaves_no_module(tmp_path: Path) -> None:
    path = write(tmp_path / "ising.py")
    load_file(path)
    module = sys.modules["hpckit_job_ising"]
    path.write_text("1 / 0")
    with pytest.raises(SpecError, match=r"ising.py:1: does not import: ZeroDivisionError"):
        load_file(path)
    assert sys.modules["hpckit_job_ising"] is module


def test_dataclasses_and_postponed_annotations_work_in_a_job(tmp_path: Path) -> None:
    text = (
        "from __future__ import annotations\nfrom dataclasses import dataclass\n"
        "@dataclass\nclass State:\n    x: int = 1\n" + GOOD
    )
    param = load_file(write(tmp_path / "ising.py", text)).job.param("T")
    assert param.type is float


def test_toml_errors_have_their_line(tmp_path: Path) -> None:
    assert fails(tmp_path, "command = 'x'\nseed = \n", "a.toml") == ":2: is not TOML: Invalid value"
    assert fails(tmp_path, "command = 'x'\nseed = [", "a.toml").startswith(":2: is not TOML: ")
    deep = "x = " + "[" * 100_000
    assert "is n" in fails(tmp_path, deep, "a.toml")
