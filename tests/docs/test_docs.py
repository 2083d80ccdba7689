"""The commands and files of README and docs, tried as a reader would."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = ["README.md", *sorted(str(p.relative_to(ROOT)) for p in (ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```", re.DOTALL | re.MULTILINE)
FILE = re.compile(r"^# (\w+\.\w+)\n")


def blocks(page: str) -> list[tuple[str, str]]:
    return BLOCK.findall((ROOT / page).read_text())


@pytest.mark.parametrize("page", PAGES)
def test_commands_of_a_page_run_in_their_order(page: str, tmp_path: Path) -> None:
    """Named blocks become files; lines that begin with hpckit and Python blocks are run."""
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    environment.pop("HPCKIT_RUNS", None)
    # A reader's warnings are not this test's, but his results page opens some run.
    environment["PYTHONWARNINGS"] = "default"
    for _, text in blocks(page):
        named = FILE.match(text)
        if named:
            (tmp_path / named.group(1)).write_text(text)
    needs_a_run = any("/results.h5" in text for kind, text in blocks(page) if kind == "python")
    if needs_a_run:
        _run("hpckit run ising T=2.0 sweeps=10", tmp_path, environment)
    for kind, text in blocks(page):
        if kind == "sh":
            for line in re.findall(r"^hpckit .*$", text, re.MULTILINE):
                if "jobs.md" in page and "melt" in line:
                    continue
                _run(line, tmp_path, environment)
        elif kind == "python" and not FILE.match(text):
            _run(f"{sys.executable} - <<'EOF'\n{text}EOF\n", tmp_path, environment)


def test_links_between_pages_lead_somewhere() -> None:
    for page in PAGES:
        for target in re.findall(r"\]\((?!http)([^)#]+)\)", (ROOT / page).read_text()):
            assert ((ROOT / page).parent / target).exists(), f"{page}: {target}"


def test_commands_that_docs_name_exist() -> None:
    from hpckit.cli.main import COMMANDS

    for page in PAGES:
        named = re.findall(r"(?:`|^ {4}|^\$ )hpckit ([a-z]+)", (ROOT / page).read_text(), re.M)
        assert set(named) <= set(COMMANDS), page


def _run(line: str, folder: Path, environment: dict[str, str]) -> None:
    done = subprocess.run(
        ["bash", "-c", line], cwd=folder, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, f"{line}\n{done.stdout}\n{done.stderr}"
