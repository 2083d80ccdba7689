"""Layouts, launches, sums and products on a card, as they are on the host."""

from __future__ import annotations

import h5py

from hpckit.store.failures import failed_tasks

RIGHT = [
    # Layouts, as they come back.
    "np.array_equal(gpu.to_host(m.T), host.T)",
    "np.array_equal(gpu.to_host(m[:, 1:3]), host[:, 1:3])",
    "np.array_equal(gpu.to_host(m[1:, ::2]), host[1:, ::2])",
    "gpu.to_host(m[:0]).shape == (0, 5)",
    "np.array_equal(gpu.to_host(m, np.empty((4, 5))), host)",
    # Launches.
    "filled(threads=np.int64(7), n=7)",
    "filled(threads=(np.int32(3), 2), n=3)",
    "filled(grid=2, block=(5, 1), n=10)",
    "fill(gpu.zeros(0), 1, 0, threads=1) is None",
    "bounded.block == 64",
    "shared_sum(100) == 99 * 50",
    "shared_sum(12000) == 11999 * 6000",
    # Sums and products.
    "gpu.sum(gpu.array(np.arange(3000.0))) == 2999 * 1500",
    "gpu.sum(gpu.zeros(0)) == 0",
    "np.allclose(gpu.to_host(gpu.matmul(m, gpu.array(host.T))), host @ host.T)",
    "np.allclose(gpu.to_host(gpu.matmul(stack, stack)), deep @ deep)",
]

AROUND = """
    import numpy as np
    from hpckit import farm
    RIGHT = {right!r}
    SOURCE = '''
    __global__ void fill(double *x, double a, int n)
    {{
        int i = blockIdx.x * blockDim.x + threadIdx.x;
        if (i < n && threadIdx.y == 0 && blockIdx.y == 0) x[i] = a;
    }}
    __global__ void __launch_bounds__(64) bounded(double *x) {{ x[threadIdx.x] = 1; }}
    __global__ void backwards(double *x, int n)
    {{
        extern __shared__ double part[];
        for (int i = threadIdx.x; i < n; i += blockDim.x) part[i] = i;
        __syncthreads();
        double sum = 0;
        for (int i = 0; i < n; ++i) sum += part[i];
        if (threadIdx.x == 0) x[0] = sum;
    }}
    '''

    @farm(gpus_per_task=1)
    def job(task, i: int = 0):
        gpu = task.gpu
        host, deep = task.rng.random((4, 5)), task.rng.random((2, 3, 3))
        m, stack = gpu.array(host), gpu.array(deep)
        fill, bounded = gpu.kernel(SOURCE, "fill"), gpu.kernel(SOURCE, "bounded")

        def filled(n, **shape):
            x = gpu.zeros(12)
            fill(x, 3.0, n, **shape)
            return list(gpu.to_host(x)) == [3.0] * n + [0.0] * (12 - n)

        def shared_sum(n):
            x = gpu.zeros(1)
            gpu.kernel(SOURCE, "backwards")(x, n, grid=1, block=32, shared=8 * n)
            return gpu.to_host(x)[0]

        return {{"right": bool(eval(RIGHT[i], {{**globals(), **locals()}}))}}
"""


def test_what_is_right(cards):
    cards.job(AROUND.format(right=RIGHT))
    ended = cards("run", "job.py", f"i=range({len(RIGHT)})", "--workers", 1)
    failed = dict(failed_tasks(cards.last() / "results.h5", 100))
    assert ended.code == 0, {RIGHT[task]: told for task, told in failed.items()}
    with h5py.File(cards.last() / "results.h5") as file:
        wrong = [body for body, right in zip(RIGHT, file["right"], strict=True) if not right]
    assert not wrong


def test_memory_that_was_given_back_is_not_written_before_its_last_reader_has_ended(cards):
    cards.job(
        """
        import numpy as np
        from hpckit import farm
        SOURCE = '''
        __global__ void set(double *x, double a, int n) { if (threadIdx.x < n) x[threadIdx.x] = a; }
        __global__ void add(const double *t, double *y, int n)
        {
            if (threadIdx.x < n) y[threadIdx.x] += t[threadIdx.x];
        }
        '''

        @farm(gpus_per_task=1)
        def job(task):
            gpu = task.gpu
            set_, add = gpu.kernel(SOURCE, "set"), gpu.kernel(SOURCE, "add")
            streams = [gpu.stream() for _ in range(3)]
            y = [gpu.zeros(32) for _ in range(60)]
            for n in range(60):
                # Gone at the end of each turn, while its stream has not come to it.
                t = gpu.empty(32)
                set_(t, float(n), 32, grid=1, block=32, stream=streams[n % 3])
                add(t, y[n], 32, grid=1, block=32, stream=streams[n % 3])
                del t
            gpu.synchronize()
            return {"wrong": sum(int(np.any(gpu.to_host(y[n]) != n)) for n in range(60))}
        """
    )
    ended = cards("run", "job.py", env={"SOFTWARE_GPU_JITTER": "3000"})
    assert ended.code == 0, ended.stderr
    with h5py.File(cards.last() / "results.h5") as file:
        assert file["wrong"][0] == 0


def test_headers_that_an_option_finds_decide_a_cubin_too(cards):
    cards.job(
        """
        from pathlib import Path
        from hpckit import farm

        @farm(gpus_per_task=1)
        def job(task):
            gpu = task.gpu
            source = '#include <value.h>\\n__global__ void fill(double *x) { x[0] = VALUE; }'
            x = gpu.zeros(1)
            there = f"-I{Path.cwd() / 'elsewhere'}"
            gpu.kernel(source, "fill", options=[there])(x, grid=1, block=1)
            return float(gpu.to_host(x)[0])
        """
    )
    header = cards.directory / "elsewhere" / "value.h"
    header.parent.mkdir()
    for value in (3, 4):
        header.write_text(f"#define VALUE {value}\n")
        ended = cards("run", "job.py", "--engine", "serial")
        assert ended.code == 0, ended.stderr
        with h5py.File(cards.last() / "results.h5") as file:
            assert file["result"][0] == value


def test_a_worker_of_several_runs_keeps_their_accounts_apart(cards):
    text = cards.python(
        """
from pathlib import Path
from hpckit.run.gpu.held import card_here, tell_here
from hpckit.run.gpu.wish import Wish
import json
for name in ("a", "b"):
    uses = Path.cwd() / name / "gpus"
    uses.parent.mkdir()
    gpu = card_here(Wish(1, 1, Path.cwd(), uses))
    gpu.array([1.0] * (3 if name == "a" else 5))
    tell_here()
for name in ("a", "b"):
    (path,) = (Path.cwd() / name / "gpus").iterdir()
    print(int(json.loads(path.read_text())["transfers"]["to card"]["bytes"]))
"""
    )
    assert text.split() == ["24", "40"]
