"""Cards that fail, and machines that have none."""

from __future__ import annotations

import h5py
import pytest

FILL = """
    import os
    from pathlib import Path
    from hpckit import farm

    @farm(gpus_per_task=1)
    def job(task, i: int = 0):
        gpu = task.gpu
        x = gpu.zeros(8)
        fill = gpu.kernel("__global__ void fill(double *x, int v) { x[threadIdx.x] = v; }", "fill")
        fill(x, i, grid=1, block=8)
        return {"x": float(gpu.to_host(x)[3]), "pid": os.getpid()}
"""

# Errors after which no call of the process works: an illegal address, a lost device, ECC.
STICKY = [700, 79, 214]


@pytest.mark.parametrize("code", STICKY)
def test_a_worker_whose_card_fails_is_replaced_and_its_tasks_are_done(cards, code):
    cards.job(FILL)
    fault = cards.directory / "fault"
    fault.write_text(str(code))
    ended = cards(
        "run", "job.py", "i=range(40)", "--workers", 1, env={"SOFTWARE_GPU_FAULT": str(fault)}
    )
    assert ended.code == 0, ended.stderr
    assert not fault.exists()
    with h5py.File(cards.last() / "results.h5") as file:
        assert list(file["x"][()]) == list(range(40))
        assert len(set(file["pid"][()])) == 1
    # The first worker met the fault before it had done anything.
    assert len(cards.manifest().gpus) >= 1


def test_a_task_that_writes_past_its_memory_fails_alone(cards):
    cards.job(FILL.replace("fill(x, i,", "fill(x if i != 7 else gpu.empty(4), i,"))
    ended = cards("run", "job.py", "i=range(20)", "--workers", 1)
    assert ended.code in (0, 3)
    cards.job(FILL.replace("grid=1, block=8", "grid=1, block=8 if i != 7 else 1024"))
    ended = cards("run", "job.py", "i=range(20)", "--workers", 1)
    assert ended.code == 3, ended.stderr
    assert "task 7 failed" in ended.stderr
    assert "an illegal memory access was encountered" in ended.stderr
    assert cards.manifest().counts == {"done": 19, "failed": 1, "missing": 0}


def test_ranks_whose_card_fails_end_with_the_reason(cards):
    cards.job(
        """
        from hpckit import spmd

        @spmd(ntasks=2, gpus_per_task=1)
        def job(run):
            gpu = run.gpu
            x = gpu.zeros(8)
            fill = gpu.kernel("__global__ void fill(double *x) { x[threadIdx.x] = 1; }", "fill")
            if run.rank == 1:
                fill(x, grid=1, block=1024)
            run.comm.Barrier()
        """
    )
    ended = cards("run", "job.py")
    assert ended.code == 1
    assert "software GPU is of no use to this process any more" in ended.stderr
    assert "illegal memory access" in ended.stderr
    assert "compute-sanitizer" in ended.stderr
    assert "Traceback" not in ended.stderr
    assert cards.manifest().state == "failed"


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"LD_LIBRARY_PATH": ""}, "the GPU driver's library is not here (libcuda.so.1"),
        ({"SOFTWARE_GPUS": "0"}, "no GPU can be had (cuInit failed: no CUDA-capable device"),
        ({"PYTHONPATH": "."}, "gpus_per_task needs PyCUDA"),
    ],
)
def test_what_is_missing_is_named_with_the_remedy(cards, change, told):
    cards.job(FILL)
    hidden = cards.directory / "pycuda.py"
    if "PYTHONPATH" in change:
        hidden.write_text("raise ModuleNotFoundError(\"No module named 'pycuda'\")")
    ended = cards("run", "job.py", "i=range(9)", env=change)
    assert ended.code == 1
    assert told in ended.stderr
    assert "Traceback" not in ended.stderr
    assert cards.manifest().counts["missing"] == 9
