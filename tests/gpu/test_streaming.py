"""Arrays that go through the card in blocks, and ranks that exchange parts of theirs."""

from __future__ import annotations

import h5py
import numpy as np

STREAM = """
    import h5py
    import numpy as np
    from hpckit import farm

    SOURCE = '''
    __global__ void mix(const double *x, const float *y, double *z, int n)
    {
        int i = blockIdx.x * blockDim.x + threadIdx.x;
        if (i < n) z[i] = 2 * x[i] + y[i];
    }
    '''

    @farm(gpus_per_task=1)
    def job(task, rows: int = 10, length: int = 103, where: str = "memory"):
        gpu = task.gpu
        mix = gpu.kernel(SOURCE, "mix")
        random = np.random.default_rng(length)
        x, y = random.random((length, 5)), random.random((length, 5)).astype(np.float32)
        z = np.full((length, 5), -1.0)
        expected = 2 * x + y
        if where == "pinned":
            pinned = [gpu.pinned(a.shape, a.dtype) for a in (x, y, z)]
            for new, old in zip(pinned, (x, y, z)):
                new[:] = old
            x, y, z = pinned
        if where == "file":
            file = h5py.File(f"data-{task.index}.h5", "w")
            x, y, z = (file.create_dataset(name, data=a) for name, a in zip("xyz", (x, y, z)))

        def step(x, y, z, stream):
            assert 0 < len(x) <= rows
            mix(x, y, z, x.size, threads=x.size, stream=stream)

        gpu.stream_blocks(step, [x, y], [z], rows)
        return {"wrong": int(np.sum(z[:] != expected)), "least": float(np.min(z[:]))}
"""


def test_every_row_goes_through_once_whatever_the_pace_of_the_card(cards):
    cards.job(STREAM)
    sweep = ("rows=1,7,10,103,1000", "length=1,20,103", "where=memory,pinned,file")
    slow = {"SOFTWARE_GPU_JITTER": "400"}
    ended = cards("run", "job.py", *sweep, "--workers", 1, env=slow)
    assert ended.code == 0, ended.stderr
    with h5py.File(cards.last() / "results.h5") as file:
        assert np.all(file["wrong"][()] == 0)
        assert np.all(file["least"][()] >= 0)
    (card,) = cards.manifest().gpus
    assert card["transfers"]["to card"]["bytes"] == 5 * 3 * (1 + 20 + 103) * 5 * 12


def test_an_array_larger_than_the_card(cards):
    cards.job(STREAM.replace("assert 0 < len(x) <= rows", "pass").replace(", rows)\n", ")\n"))
    small = {"SOFTWARE_GPU_MEMORY": str(2 << 20)}
    ended = cards("run", "job.py", "length=100000", "where=memory", env=small)
    assert ended.code == 0, ended.stderr
    with h5py.File(cards.last() / "results.h5") as file:
        assert file["wrong"][0] == 0
    (card,) = cards.manifest().gpus
    assert card["peak_bytes"] < 2 << 20 < 100000 * 5 * 20


def test_messages_of_another_size_are_refused(cards):
    cards.job(
        """
        from hpckit import spmd

        @spmd(ntasks=2, gpus_per_task=1)
        def job(run):
            gpu, comm, other = run.gpu, run.comm, 1 - run.rank
            x = gpu.zeros((4, 6))
            halo = gpu.halo(comm, [(x[1], other)], [(x[2:4], other)])
            halo.start()
            halo.finish()
        """
    )
    ended = cards("run", "job.py")
    assert ended.code == 1
    assert "sent 48 bytes for an array of shape (2, 6), which has 96" in ended.stderr


def test_parts_of_arrays_go_from_card_to_card(cards):
    cards.job(
        """
        import numpy as np
        from hpckit import spmd

        SOURCE = "__global__ void add(double *x, double a) { x[threadIdx.x] += a; }"

        @spmd(ntasks=3, ntasks_per_gpu=2)
        def job(run):
            gpu, comm = run.gpu, run.comm
            add = gpu.kernel(SOURCE, "add")
            x = gpu.array(np.full((4, 6), float(run.rank)))
            right, left = (comm.rank + 1) % comm.size, (comm.rank - 1) % comm.size
            halo = gpu.halo(comm, [(x[2], right), (x[1], left)], [(x[0], left), (x[3], right)])
            assert not halo.is_direct
            for turn in range(5):
                add(x[2], 10.0, grid=1, block=6)
                halo.start()
                add(x[1], 0.5, grid=1, block=6)
                halo.finish()
                got = gpu.to_host(x)
                assert np.all(got[0] == left + 10.0 * (turn + 1)), got
                assert np.all(got[3] == right + 0.5 * turn), got
            halo.free()
            run.save("x", x[1], offset=(6 * run.rank,), shape=(18,))
            run.checkpoint(step=1, x=x)
            assert np.array_equal(run.restore()["x"], gpu.to_host(x))
        """
    )
    ended = cards("run", "job.py", env={"SOFTWARE_GPU_JITTER": "300"})
    assert ended.code == 0, ended.stderr
    with h5py.File(cards.last() / "results.h5") as file:
        assert list(file["x"][::6]) == [2.5, 3.5, 4.5]
