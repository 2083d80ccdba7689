"""docs/gpu.md, followed word by word on cards."""

from __future__ import annotations

import re

import pytest
from gpu_here import FOLDER, ROOT

PAGE = (ROOT / "docs" / "gpu.md").read_text()
COMMAND = re.compile(r"^\$ (.*)$", re.MULTILINE)
FILE = re.compile(r"^```python\n# (\w+\.py)\n(.*?)^```", re.MULTILINE | re.DOTALL)


def test_the_page_works(cards):
    ((name, text),) = FILE.findall(PAGE)
    (cards.directory / name).write_text(text)
    (cards.directory / "kernels.cu").write_text("__global__ void k(double *x) { x[0] = 1; }")
    for line in COMMAND.findall(PAGE):
        process = cards.popen(["bash", "-c", line], cards.variables)
        stdout, stderr = process.communicate(timeout=120)
        assert process.returncode == 0, f"{line}\n{stdout}\n{stderr}"
        if "report" in line:
            assert "axpy" in stdout
            assert "of the cards' time: kernels" in stdout
    assert len(list((cards.directory / "cubins").glob("*.cubin"))) == 2 * 3


def test_the_benchmark_runs(cards):
    argv = [str(FOLDER / "bin" / "python"), str(ROOT / "benchmarks" / "gpu.py"), "here", "--small"]
    process = cards.popen(argv, cards.variables)
    stdout, stderr = process.communicate(timeout=200)
    assert process.returncode == 0, stderr
    assert len(stdout.splitlines()) == 7


def test_the_report_and_its_roofline(cards):
    small = ("cavity", "n=12", "max_time=1", "--ranks", 1)
    assert cards("run", *small, "-o", "host").code == 0
    assert cards("run", *small, "--gpus-per-task", 1).code == 0
    (on_host,) = (cards.directory / "host").iterdir()
    pytest.importorskip("matplotlib")
    ended = cards("gpu", "report", "last", "--against", on_host, "--plot", "roofline.png")
    assert ended.code == 0, ended.stderr
    assert f"as fast as {on_host.name}, its kernels alone" in ended.stdout
    assert (cards.directory / "roofline.png").stat().st_size > 10_000
    unnamed = cards("gpu", "report", "last", "--plot", "roofline")
    assert unnamed.code == 2
    assert "the name says no type" in unnamed.stderr
    assert cards("run", "cavity", "n=16", "max_time=1", "--ranks", 1, "-o", "other").code == 0
    (other,) = (cards.directory / "other").iterdir()
    refused = cards("gpu", "report", "last", "--against", other)
    assert refused.code == 2
    assert "no run of the same: its assignments is {'n': '16'" in refused.stderr
    none = cards("gpu", "report", on_host)
    assert none.code == 2
    assert "has no account of GPUs" in none.stderr
    listed = cards("gpu", "list")
    assert listed.stdout.count("software GPU") == 2
