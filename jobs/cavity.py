"""Lid-driven cavity: the steady flow in a square box under a moving lid, on N MPI ranks.

A lattice Boltzmann solver on the nine velocities D2Q9. All walls lie half a cell outside the
outermost cell centres; the lid is the upper one and moves to the right.

Equilibrium   He & Luo, J. Stat. Phys. 88, 927 (1997): the incompressible one, stored as the
              deviation from rest, f_k - w_k, which keeps the small numbers' digits.
Collision     Two relaxation times, Ginzburg, Verhaeghe & d'Humieres, Commun. Comput. Phys. 3,
              427 (2008). With their magic product 3/16 a wall stands exactly half-way
              between the nodes whatever the viscosity.
Walls         Bounce-back with a moving wall, Ladd, J. Fluid Mech. 271, 285 (1994).
Reference     Ghia, Ghia & Shin, J. Comput. Phys. 48, 387 (1982): u and v on the centre lines.

Each rank owns a block of rows. No sum runs over ranks, so that the fields are the same bit for
bit on any number of them, and so they are on GPUs: hpckit run cavity --gpus-per-task 1
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from hpckit import spmd
from hpckit.errors import UsageError

# The directions k of f[row, k, column], ordered so that what a row sends is one contiguous block:
#   k     0  1  2 | 3  4  5 | 6  7  8
#   c_x   0  1 -1 | 0  1 -1 | 0 -1  1
#   c_y   0  0  0 | 1  1  1 |-1 -1 -1
# Weights w: 4/9 for k = 0, 1/9 along the axes, 1/36 along the diagonals.
# Opposites: 1-2, 3-6, 4-7, 5-8.
UPWARD, DOWNWARD = slice(3, 6), slice(6, 9)
MAGIC = 3 / 16
MAX_LID = 0.3  # in lattice units; beyond it the error in (speed / sound speed)^2 is not small


# Compiled by each rank for itself: with cache=True all ranks would race for the same files.
@njit
def stream_collide(old, new, first, last, even, odd):
    """Advance the rows `first` to `last - 1` by one step from `old` into `new`.

    Both are populations of shape (rows + 2, 9, n + 2), with ghost cells all around. `even` and
    `odd` are the two relaxation rates. No fastmath: it would let the compiler round the same
    row differently in different blocks.
    """
    n = old.shape[2] - 2
    for j in range(first, last):
        # Side walls: what a cell sends into a wall comes back to it in the opposite direction.
        old[j, 1, 0], old[j, 2, n + 1] = old[j, 2, 1], old[j, 1, n]
        old[j - 1, 4, 0], old[j - 1, 5, n + 1] = old[j, 7, 1], old[j, 8, n]
        old[j + 1, 8, 0], old[j + 1, 7, n + 1] = old[j, 5, 1], old[j, 4, n]
        for i in range(1, n + 1):
            f0, f1, f2 = old[j, 0, i], old[j, 1, i - 1], old[j, 2, i + 1]
            f3, f4, f5 = old[j - 1, 3, i], old[j - 1, 4, i - 1], old[j - 1, 5, i + 1]
            f6, f7, f8 = old[j + 1, 6, i], old[j + 1, 7, i + 1], old[j + 1, 8, i - 1]

            jx = f1 - f2 + (f4 - f7) + (f8 - f5)
            jy = f3 - f6 + (f4 - f7) + (f5 - f8)
            isotropic = f0 + f1 + f2 + f3 + f4 + f5 + f6 + f7 + f8 - 1.5 * (jx * jx + jy * jy)

            # Of each pair of opposites, the sum relaxes at one rate and the difference at the
            # other, towards w (rho - 3/2 j.j + 9/2 (c.j)^2) and 3 w c.j.
            new[j, 0, i] = f0 - even * (f0 - 4 / 9 * isotropic)

            s = even * (0.5 * (f1 + f2) - 1 / 9 * (isotropic + 4.5 * jx * jx))
            d = odd * (0.5 * (f1 - f2) - 1 / 3 * jx)
            new[j, 1, i], new[j, 2, i] = f1 - s - d, f2 - s + d

            s = even * (0.5 * (f3 + f6) - 1 / 9 * (isotropic + 4.5 * jy * jy))
            d = odd * (0.5 * (f3 - f6) - 1 / 3 * jy)
            new[j, 3, i], new[j, 6, i] = f3 - s - d, f6 - s + d

            c = jx + jy
            s = even * (0.5 * (f4 + f7) - 1 / 36 * (isotropic + 4.5 * c * c))
            d = odd * (0.5 * (f4 - f7) - 1 / 12 * c)
            new[j, 4, i], new[j, 7, i] = f4 - s - d, f7 - s + d

            c = jy - jx
            s = even * (0.5 * (f5 + f8) - 1 / 36 * (isotropic + 4.5 * c * c))
            d = odd * (0.5 * (f5 - f8) - 1 / 12 * c)
            new[j, 5, i], new[j, 8, i] = f5 - s - d, f8 - s + d


@njit
def reflect(f, at_floor, at_lid, lid):
    """Fill the ghost rows behind the floor and the lid with what these walls send back.

    The lid adds 6 w c.u_lid to each population, which is -+ lid / 6 on the two diagonals.
    """
    top, n = f.shape[0] - 2, f.shape[2] - 2
    for i in range(1, n + 1):
        if at_floor:
            f[0, 3, i], f[0, 4, i - 1], f[0, 5, i + 1] = f[1, 6, i], f[1, 7, i], f[1, 8, i]
        if at_lid:
            f[top + 1, 6, i] = f[top, 3, i]
            f[top + 1, 7, i + 1] = f[top, 4, i] - lid / 6
            f[top + 1, 8, i - 1] = f[top, 5, i] + lid / 6


@njit
def observe(f, lid, u, v, p):
    """Write velocity (unit: lid) and pressure (unit: density lid^2), arrays of shape (rows, n).

    Returns the largest change of u and v against what the arrays held: infinity if the flow
    has diverged, since a not-a-number would compare as no change at all.
    """
    change = 0.0
    for j in range(u.shape[0]):
        for i in range(u.shape[1]):
            g = f[j + 1, :, i + 1]
            jx = g[1] - g[2] + (g[4] - g[7]) + (g[8] - g[5])
            jy = g[3] - g[6] + (g[4] - g[7]) + (g[5] - g[8])
            rho = g[0] + g[1] + g[2] + g[3] + g[4] + g[5] + g[6] + g[7] + g[8]
            here = max(abs(jx / lid - u[j, i]), abs(jy / lid - v[j, i]))
            if not here <= change:
                change = here if here < np.inf else np.inf
            u[j, i], v[j, i], p[j, i] = jx / lid, jy / lid, rho / 3 / lid**2
    return change


def check(ranks, n, reynolds, lid):
    """Refuse what cannot be computed."""
    if ranks > n:
        raise UsageError(f"{ranks} ranks for n={n} rows: use at most n ranks, one row each")
    if not (reynolds > 0 and 0 < lid <= MAX_LID):
        raise UsageError(f"reynolds={reynolds}, lid={lid}: both positive, lid at most {MAX_LID}")


def relaxation_rates(viscosity):
    """Return the rates of the even and the odd populations, for a viscosity in lattice units.

    viscosity = (1/even - 1/2) / 3, and (1/even - 1/2) (1/odd - 1/2) = MAGIC.
    """
    slack = 3 * viscosity
    return 1 / (slack + 0.5), 1 / (MAGIC / slack + 0.5)


class Host:
    """A rank's block of rows on the processor; `f` are its populations."""

    def __init__(self, run, n, rows, edges, rates, lid):
        self.edges, self.rates, self.lid = edges, rates, lid
        self.f, self._next = np.zeros((2, rows + 2, 9, n + 2))
        self.fields = np.zeros((3, rows, n))
        self._halo, self._halo_next = halo(run.comm, self.f), halo(run.comm, self._next)

    def load(self, f):
        """Go on from populations that were saved."""
        self.f[:] = f

    def advance(self):
        """Make one step; the inner rows are computed while the ghost rows are under way."""
        old, new, rows = self.f, self._next, self.f.shape[0] - 2
        for request in self._halo:
            request.Start()
        stream_collide(old, new, 2, rows, *self.rates)
        for request in self._halo:
            request.Wait()
        reflect(old, *self.edges, self.lid)
        stream_collide(old, new, 1, 2, *self.rates)
        stream_collide(old, new, max(rows, 2), rows + 1, *self.rates)
        self.f, self._next = self._next, self.f
        self._halo, self._halo_next = self._halo_next, self._halo

    def observe(self):
        """Compute u, v and p; return the largest change of u and v, infinity if they diverged."""
        return observe(self.f, self.lid, *self.fields)

    def free(self):
        """Give MPI's requests back."""
        for request in self._halo + self._halo_next:
            request.Free()


class Card:
    """The same on a GPU: cavity.cu has the steps."""

    def __init__(self, run, n, rows, edges, rates, lid):
        self.gpu, self.n, self.rows, self.lid = run.gpu, n, rows, lid
        self.edges, self.rates = [float(edge) for edge in edges], rates
        options = ["-fmad=false"]  # as on the processor
        self._step = self.gpu.kernel(
            "cavity.cu",
            "stream_collide",
            options=options,
            bytes_per_thread=144,
            flops_per_thread=97,
        )
        self._observe = self.gpu.kernel("cavity.cu", "observe", options=options)
        self.f, self._next = (self.gpu.zeros((rows + 2, 9, n + 2)) for _ in range(2))
        self.fields = np.zeros((3, rows, n))
        self._on_card = self.gpu.empty((3, rows, n))
        self._halo, self._halo_next = (self._exchange(run.comm, f) for f in (self.f, self._next))

    def load(self, f):
        """Go on from populations that were saved."""
        self.gpu.cuda.memcpy_htod(self.f.gpudata, f)

    def advance(self):
        """Make one step; the inner rows are computed while the ghost rows are under way."""
        if all(self.edges):
            self._rows(1, self.rows + 1)
        else:
            self._halo.start()
            self._rows(2, self.rows)
            self._halo.finish()
            self._rows(1, 2)
            self._rows(max(self.rows, 2), self.rows + 1)
        self.f, self._next = self._next, self.f
        self._halo, self._halo_next = self._halo_next, self._halo

    def observe(self):
        """Compute u, v and p; return the largest change of u and v, infinity if they diverged."""
        before = self.fields[:2].copy()
        self._observe(
            self.f, self._on_card, self.n, self.rows, self.lid, threads=(self.n, self.rows)
        )
        self.gpu.to_host(self._on_card, self.fields)
        change = float(np.abs(self.fields[:2] - before).max())
        return change if change < np.inf else np.inf

    def free(self):
        """Give MPI's requests back."""
        self._halo.free()
        self._halo_next.free()

    def _rows(self, first, last):
        if last > first:
            self._step(
                *(self.f, self._next, self.n, self.rows, first, last),
                *(*self.rates, *self.edges, self.lid),
                threads=(self.n, last - first),
            )

    def _exchange(self, comm, f):
        below, above = neighbours(comm)
        sends = [(f[1, DOWNWARD], below), (f[self.rows, UPWARD], above)]
        receives = [(f[0, UPWARD], below), (f[self.rows + 1, DOWNWARD], above)]
        return self.gpu.halo(comm, sends, receives)


def neighbours(comm):
    """Return the ranks below and above this one; none at the walls."""
    from mpi4py import MPI  # not at the top: importing it starts MPI, also where no rank runs

    below = comm.rank - 1 if comm.rank > 0 else MPI.PROC_NULL
    return below, comm.rank + 1 if comm.rank < comm.size - 1 else MPI.PROC_NULL


def halo(comm, f):
    """Return persistent requests that fill the ghost rows of `f` from the neighbouring ranks."""
    below, above = neighbours(comm)
    return [
        comm.Recv_init(f[0, UPWARD], source=below),
        comm.Recv_init(f[-1, DOWNWARD], source=above),
        comm.Send_init(f[1, DOWNWARD], dest=below),
        comm.Send_init(f[-2, UPWARD], dest=above),
    ]


@spmd(ntasks=4, walltime="1h")
def cavity(
    run,
    n: int = 128,
    reynolds: float = 100.0,
    lid: float = 0.1,
    tolerance: float = 1e-5,
    max_time: int = 200,
):
    """Steady flow in a lid-driven cavity of n x n cells, saved as u, v (unit: lid speed) and p.

    The unit of time is side / lid speed, n / lid steps. Ends once u and v change by less than
    `tolerance` in it. `lid` is the lid's speed in lattice units (sound: 0.577).
    """
    comm = run.comm
    check(comm.size, n, reynolds, lid)
    rates = relaxation_rates(lid * n / reynolds)
    j0, j1 = comm.rank * n // comm.size, (comm.rank + 1) * n // comm.size
    flow = (Card if run.has_gpu else Host)(run, n, j1 - j0, (j0 == 0, j1 == n), rates, lid)

    step, change = 0, math.inf
    if saved := run.restore():
        step, change = saved["step"], saved["change"]
        flow.load(saved["f"])
        flow.observe()

    unit = round(n / lid)
    while step < max_time * unit and change >= tolerance:
        for _ in range(unit):
            flow.advance()
        step += unit
        # A maximum is the same in whatever order it is taken; a sum would not be.
        change = comm.allreduce(flow.observe(), op=max)
        if change == math.inf:
            raise UsageError(f"n={n} is too coarse for reynolds={reynolds}: the flow diverged")
        run.record("residual", change, step=step)
        run.progress(step, max_time * unit)
        if change >= tolerance:
            run.checkpoint(step=step, change=change, f=flow.f)
    flow.free()
    if change >= tolerance and comm.rank == 0:
        run.log(f"not steady: u and v still change by {change:.1e} at time {max_time}")
    save(run, n, j0, *flow.fields)


def save(run, n, j0, u, v, p):
    """Save the fields and the cells' centres; each rank gives its rows, from row `j0` on."""
    centres = (np.arange(n) + 0.5) / n
    whole = {"shape": (n,), "units": "1"}
    if run.rank == 0:
        run.save("x", centres, offset=(0,), dims=("x",), long_name="x / side", **whole)
    own = centres[j0 : j0 + len(u)]
    run.save("y", own, offset=(j0,), dims=("y",), long_name="y / side", **whole)

    whole = {"offset": (j0, 0), "shape": (n, n), "dims": ("y", "x"), "units": "1"}
    run.save("u", u, long_name="velocity along x / lid speed", **whole)
    run.save("v", v, long_name="velocity along y / lid speed", **whole)
    run.save("p", p, long_name="pressure / (density lid speed^2)", **whole)
