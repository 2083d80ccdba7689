"""A program of N ranks: heat flowing along a rod, each rank with a piece of it."""

import numpy as np

from hpckit import spmd


@spmd(ntasks=2, walltime="10m")
def heat(run, n: int = 200, steps: int = 2000):
    """Solve u_t = u_xx on the unit rod, cold at both ends, by explicit Euler steps."""
    from mpi4py import MPI

    first, last = run.rank * n // run.size, (run.rank + 1) * n // run.size
    left = run.rank - 1 if run.rank > 0 else MPI.PROC_NULL
    right = run.rank + 1 if run.rank < run.size - 1 else MPI.PROC_NULL
    x = (np.arange(first, last) + 0.5) / n
    u = np.zeros(last - first + 2)  # with a halo cell at each end, cold at the ends of the rod
    u[1:-1] = np.sin(np.pi * x)

    for step in range(steps):
        run.comm.Sendrecv(u[1:2], dest=left, recvbuf=u[-1:], source=right)
        run.comm.Sendrecv(u[-2:-1], dest=right, recvbuf=u[:1], source=left)
        u[1:-1] += 0.4 * (u[2:] - 2 * u[1:-1] + u[:-2])  # dt = 0.4 dx**2
        if step % 100 == 0:
            run.record("warmest", run.comm.allreduce(u.max(), op=MPI.MAX), step=step)
            run.progress(step, steps)

    run.save("x", x, offset=[first], shape=[n], dims=["x"], units="rod length")
    run.save("u", u[1:-1], offset=[first], shape=[n], dims=["x"], long_name="temperature")
