"""Kernels on a card: compiled once, launched right, and told apart from what is wrong with them."""

from __future__ import annotations

import json
import time
from pathlib import Path

import h5py

from hpckit.store.failures import failed_tasks

AXPY = '''
SOURCE = """
__global__ void axpy(double a, const double *x, double *y, int n)
{
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) y[i] += a * x[i];
}
"""
'''

JOB = f"""
    import numpy as np
    from hpckit import farm
    {AXPY.replace(chr(10), chr(10) + "    ")}
    @farm(gpus_per_task=1)
    def job(task, a: float = 2.0, n: int = 1000):
        gpu = task.gpu
        axpy = gpu.kernel(SOURCE, "axpy", bytes_per_thread=24, flops_per_thread=2)
        x, y = gpu.array(np.arange(float(n))), gpu.zeros(n)
        axpy(a, x, y, n, threads=n)
        return {{"sum": gpu.sum(y), "last": gpu.to_host(y)[-1]}}
"""


def test_a_farm_on_a_card(cards):
    cards.job(JOB)
    ended = cards("run", "job.py", "a=1,2,3", "n=1,1000,3000", "--workers", 1)
    assert ended.code == 0, ended.stderr
    assert cards.manifest().counts["done"] == 9
    (card,) = cards.manifest().gpus
    assert card["name"] == "software GPU"
    assert card["uuid"].startswith("GPU-")
    axpy = card["kernels"]["axpy"]
    assert axpy["calls"] == 9
    assert axpy["bytes"] == 24 * 3 * 4001
    assert axpy["flops"] == 2 * 3 * 4001
    assert axpy["registers"] > 0
    assert card["transfers"]["to card"]["bytes"] == 8 * 3 * 4001
    assert card["ceilings"]["bytes_per_second"] > 0
    assert card["peak_bytes"] >= 2 * 8 * 3000
    busy = card["kernel_seconds"] + card["transfer_seconds"]
    assert 0 < busy < card["seconds"]
    assert not (cards.last() / "gpus").exists()


def test_values_are_right(cards):
    cards.job(JOB)
    assert cards("run", "job.py", "n=1,100000", "a=0.5").code == 0
    with h5py.File(cards.last() / "results.h5") as file:
        assert list(file["sum"][()]) == [0.0, 0.5 * 99999 * 100000 / 2]
        assert list(file["last"][()]) == [0.0, 49999.5]


WRONG = {
    "k(x, threads=1)": "1 arguments for its 2 parameters (double *x, int n)",
    "k(x, 1.5, threads=1)": "'int n' cannot be 1.5; it takes a whole number",
    "k(np.zeros(3), 1, threads=1)": "an array of the host; it takes a copy of it",
    "k(gpu.zeros(3, np.float32), 1, threads=1)": "an array of float32; it takes one of float64",
    "k(gpu.zeros((4, 4))[:, 1], 1, threads=1)": "an array with gaps",
    "k(x, 1)": "threads=None, grid=None, block=None: give either threads, or grid and block",
    "k(x, 1, grid=1)": "grid=1, block=None: give either threads, or grid and block",
    "k(x, 1, grid=1, block=8, threads=8)": "give either threads, or grid and block",
    "k(x, 1, threads=0)": "threads=0: it takes one to three whole numbers from 1 on",
    "k(x, 1, threads=(1, 1, 1, 5))": "threads=(1, 1, 1, 5): it takes one to three whole numbers",
    "k(x, 1, threads=10**13)": "a grid of (78125000000, 1, 1) blocks; at most (2147483647, 65535",
    "k(x, 1, threads=1, block=2048)": "block=2048: at most 1024 threads",
    "k(x, 1e300, threads=1)": "'int n' cannot be 1e+300; it takes a whole number",
    "k(x, gpu.zeros(4), threads=1)": "'int n' cannot be an array of shape (4,); it takes a number",
    "k(x, '1', threads=1)": "'int n' cannot be '1'; it takes a number of int32",
    "gpu.to_host(np.ones(3))": "gpu.to_host: a ndarray is not on the card: gpu.array(x) makes",
    "gpu.matmul(np.ones((2, 2)), x)": "gpu.matmul: a ndarray is not on the card",
    "gpu.array(['a'])": "gpu.array: an array of <U1; it takes numbers",
    "gpu.empty(-3)": "gpu.empty: the shape -3: whole numbers from 0 on",
    "gpu.stream_blocks(k, np.ones(3), np.ones(3))": "lists of arrays of the host, such as [x, y]",
    "gpu.stream_blocks(k, [x], [x])": "lists of arrays of the host, such as [x, y]; one is list of",
    "gpu.empty(2**40)": "out of device memory: 8.0 TiB were asked for, 2",
    "gpu.sum(gpu.zeros(3, np.float32))": "gpu.sum: an array of float32; it takes float64",
    "gpu.matmul(x, x)": "gpu.matmul: arrays of (10,) float64 and (10,) float64",
    "gpu.stream_blocks(k, [np.ones(3)], [np.ones(4)])": "must be of one length; these are: 3, 4",
    "gpu.matmul(gpu.zeros((3, 3)).T, gpu.zeros((3, 3)))": "or transposed; it takes contiguous ones",
    "gpu.matmul(gpu.zeros((3, 3)), gpu.zeros((3, 3)), x)": "out is an array of (10,) float64; it",
    "gpu.to_host(x, np.empty(10, np.float32))": "out is an array of (10,) float32; it takes a",
    "gpu.to_host(x, np.empty(11))": "out is an array of (11,) float64; it takes a contiguous one",
    "k(x, 1, threads=1.5)": "threads=1.5: it takes one to three whole numbers",
    "gpu.pinned(2**45)": "gpu.pinned: the machine does not give 256.0 TiB",
    "k(x, 1, threads=1, shared=2**20)": "kernel k: cannot be launched",
    "gpu.stream_blocks(k, [np.ones(3)], [], 0)": "rows=0: a block has a whole number of rows",
}


def test_what_is_wrong_is_told_in_a_line(cards):
    cards.job(
        f"""
        import numpy as np
        from hpckit import farm
        WRONG = {list(WRONG)!r}

        @farm(gpus_per_task=1)
        def job(task, i: int = 0):
            gpu = task.gpu
            x = gpu.zeros(10)
            k = gpu.kernel("__global__ void k(double *x, int n) {{ x[n] = n; }}", "k")
            eval(WRONG[i])
        """
    )
    assert cards("run", "job.py", f"i=range({len(WRONG)})", "--workers", 1).code == 3
    told = dict(failed_tasks(cards.last() / "results.h5", 100))
    for task, (body, expected) in enumerate(WRONG.items()):
        assert expected in told[task], body
        assert "Traceback" not in told[task], body


def test_a_kernel_that_does_not_compile_ends_the_farm_with_the_compilers_words(cards):
    cards.job(
        """
        from hpckit import farm

        @farm(gpus_per_task=1)
        def job(task, i: int = 0):
            task.gpu.kernel("__global__ void k(double *x)\\n{\\n    y[0] = 1;\\n}", "k")
        """
    )
    ended = cards("run", "job.py", "i=range(100)")
    said = ended.stderr
    assert ended.code == 1
    assert "k.cu does not compile for sm_80" in said
    assert 'k.cu(3): error: identifier "y" is undefined' in said
    assert "y[0] = 1;" in said
    assert "Traceback" not in said
    assert cards.manifest().counts["missing"] == 100


def test_what_no_task_can_do_ends_the_farm_at_once(cards):
    for call, told in (
        ("gpu.kernel('no.cu', 'k')", "no.cu: kernels cannot be read: No such file"),
        ("gpu.kernel('__global__ void l() {}', 'k')", "kernel 'k': the source has no"),
        (
            "gpu.kernel('__global__ void k() {}', 'k', options='-g')",
            "options='-g': it takes a list",
        ),
    ):
        cards.job(
            f"""
            from hpckit import farm

            @farm(gpus_per_task=1)
            def job(task, i: int = 0):
                gpu = task.gpu
                {call}
            """
        )
        ended = cards("run", "job.py", "i=range(9)", "--engine", "serial")
        assert ended.code == 1
        assert told in ended.stderr
        assert cards.manifest().counts["missing"] == 9


def test_a_job_that_asks_for_no_card_gets_none(cards):
    cards.job(JOB.replace("gpus_per_task=1", ""))
    ended = cards("run", "job.py")
    assert "the job asks for no GPU: gpus_per_task=1 in its options" in ended.stderr
    assert cards("run", "job.py", "--gpus-per-task", 1).code == 0
    assert cards("rerun", "last").code == 0
    assert len(cards.manifest().gpus) == 1
    several = cards("run", "job.py", "--gpus-per-task", 2)
    assert "task.gpu and run.gpu are one card" in several.stderr


FILES = """
    from hpckit import farm

    @farm(gpus_per_task=1)
    def job(task):
        gpu = task.gpu
        x = gpu.zeros(3)
        gpu.kernel("kernels/fill.cu", "fill")(x, 3, threads=3)
        return gpu.to_host(x)
"""


def test_kernels_in_files_are_made_again_when_what_they_include_changes(cards, tmp_path):
    cards.job(FILES)
    kernels = tmp_path / "kernels"
    kernels.mkdir()
    (kernels / "value.h").write_text("#define VALUE 7\n")
    (kernels / "fill.cu").write_text(
        '#include "value.h"\n__global__ void fill(double *x, int n) { x[threadIdx.x % n] = VALUE; }'
    )
    cards.variables["HPCKIT_KERNELS"] = str(tmp_path / "cubins")

    def value():
        assert cards("run", "job.py").code == 0
        return json.loads(cards("show", "last", "--json").stdout)

    first = value()
    assert "7" in json.dumps(first)
    made = sorted((tmp_path / "cubins").glob("*.cubin"))
    moments = [path.stat().st_mtime_ns for path in made]
    value()
    assert [path.stat().st_mtime_ns for path in made] == moments
    (kernels / "value.h").write_text("#define VALUE 8\n")
    assert "8" in json.dumps(value())
    assert len(sorted((tmp_path / "cubins").glob("*.cubin"))) == len(made) + 1


def test_processes_that_race_for_a_kernel_compile_it_once(cards, tmp_path):
    cards.variables |= {"HPCKIT_KERNELS": str(tmp_path / "cubins"), "SOFTWARE_GPUS": "4"}
    compiler = tmp_path / "bin" / "nvcc"
    compiler.parent.mkdir()
    real = cards.variables["PATH"].split(":")[0] + "/nvcc"
    compiler.write_text(f'#!/bin/sh\necho "$*" >> {tmp_path}/calls\nexec {real} "$@"\n')
    compiler.chmod(0o755)
    cards.variables["PATH"] = f"{compiler.parent}:{cards.variables['PATH']}"
    cards.job(JOB)
    racing = [cards.start("run", "job.py", "n=1000", "-o", f"runs-{i}") for i in range(4)]
    for process in racing:
        _, stderr = process.communicate(timeout=120)
        assert process.returncode == 0, stderr
    calls = [line for line in (tmp_path / "calls").read_text().splitlines() if "-cubin" in line]
    # axpy, sums, and what measures the ceilings.
    names = [line.rpartition("/")[2] for line in calls]
    assert sorted(names) == ["axpy.cu", "multiply_add32.cu", "sums.cu"]


def test_without_a_compiler_kept_cubins_serve(cards, tmp_path):
    cards.variables["HPCKIT_KERNELS"] = str(tmp_path / "cubins")
    cards.job(JOB)
    assert cards("run", "job.py").code == 0
    without = {"HPCKIT_NVCC": ""}
    assert cards("run", "job.py", env=without).code == 0
    shipped = {"HPCKIT_KERNELS_SHIPPED": str(tmp_path / "cubins"), "HPCKIT_KERNELS": "/none"}
    assert cards("run", "job.py", env=without | shipped).code == 0
    for path in (tmp_path / "cubins").glob("*.cubin"):
        path.write_bytes(path.read_bytes()[:-100])
    ended = cards("run", "job.py", env=without)
    assert ended.code == 1
    assert "axpy.cu: no nvcc is here to compile it for sm_80, and no cubin of it in" in ended.stderr
    # They are made anew where that can be done.
    assert cards("run", "job.py").code == 0


def test_the_second_start_compiles_nothing(cards):
    cards.job(JOB)
    assert cards("run", "job.py").code == 0
    before = time.time_ns()
    assert cards("run", "job.py").code == 0
    made = Path(cards.variables["HPCKIT_KERNELS"]).glob("*.cubin")
    assert all(path.stat().st_mtime_ns < before for path in made)
