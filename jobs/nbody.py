"""Star clusters: N bodies under each other's gravity, each pair of them by itself.

hpckit run nbody n=256 steps=1000          (and --gpus-per-task 1 on a GPU)

Units         G = total mass = 1, energy -1/4: Heggie & Mathieu, Lect. Notes Phys. 267, 233 (1986).
Start         A Plummer sphere: Aarseth, Henon & Wielen, Astron. Astrophys. 37, 183 (1974).
Steps         Kick, drift, kick (Verlet): symplectic, so that the energy's error does not grow.
On a GPU      Tiles of bodies in shared memory: Nyland, Harris & Prins, GPU Gems 3, chapter 31
              (2007), who count 20 operations for each pair.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from hpckit import farm

OPERATIONS = 20
TILE = 128


@farm(
    cpus_per_task=1,
    mem="500M",
    walltime="1h",
    attrs={
        "n": {"units": "1", "long_name": "bodies"},
        "energy": {"units": "1", "long_name": "total energy at the end"},
        "energy_error": {"units": "1", "long_name": "largest relative change of the energy"},
        "virial_ratio": {"units": "1", "long_name": "-2 kinetic / potential energy at the end"},
        "position": {"units": "1", "long_name": "x, y, z of each body at the end"},
    },
)
def nbody(task, n: int = 1024, steps: int = 100, dt: float = 1 / 256, softening: float = 1 / 64):
    """Follow a cluster of n equal bodies, whose forces are softened at short distances."""
    if n < 2 or steps < 1 or dt <= 0 or softening <= 0:
        raise ValueError("n must be at least 2, steps 1, dt and softening positive")
    x, v = plummer(task.rng, n)
    cluster = (Card if task.has_gpu else Host)(task, x, v, softening)
    energies = [cluster.energy()]
    for step in range(steps):
        cluster.advance(dt)
        if (step + 1) % max(steps // 8, 1) == 0:
            energies.append(cluster.energy())
    kinetic, potential = np.transpose(energies)
    total = kinetic + potential
    return {
        "energy": total[-1],
        "energy_error": np.abs(total / total[0] - 1).max(),
        "virial_ratio": -2 * kinetic[-1] / potential[-1],
        "position": cluster.position(),
    }


def plummer(rng, n):
    """Return positions and velocities, of shape (n, 3), of a random cluster at rest."""
    shell = rng.uniform(0, 0.999, n)  # of the mass inside of a body
    radius = 1 / np.sqrt(shell ** (-2 / 3) - 1)
    speed = np.empty(n)
    for i in range(n):
        while True:  # von Neumann's rejection; the density is below 0.1
            q, height = rng.uniform(0, (1, 0.1))
            if height < q**2 * (1 - q**2) ** 3.5:
                break
        speed[i] = q * math.sqrt(2) * (1 + radius[i] ** 2) ** -0.25
    scale = 3 * math.pi / 16
    x = scale * radius[:, None] * directions(rng, n)
    v = speed[:, None] * directions(rng, n) / math.sqrt(scale)
    return x - x.mean(axis=0), v - v.mean(axis=0)


def directions(rng, n):
    """Return unit vectors, of shape (n, 3), that point anywhere."""
    vectors = rng.normal(size=(n, 3))
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


@njit
def forces(x, softening, a, potential):
    """Write accelerations, of shape (n, 3), and each body's potential."""
    n = len(x)
    mass = 1 / n
    for i in range(n):
        ax = ay = az = phi = 0.0
        for j in range(n):
            dx, dy, dz = x[j, 0] - x[i, 0], x[j, 1] - x[i, 1], x[j, 2] - x[i, 2]
            inverse = 1 / math.sqrt(dx * dx + dy * dy + dz * dz + softening * softening)
            cube = mass * inverse * inverse * inverse
            ax, ay, az = ax + cube * dx, ay + cube * dy, az + cube * dz
            if j != i:
                phi -= mass * inverse
        a[i, 0], a[i, 1], a[i, 2] = ax, ay, az
        potential[i] = phi


class Host:
    """A cluster in the processor's memory."""

    def __init__(self, task, x, v, softening):
        self.x, self.v, self.softening = x, v, softening
        self.a, self.potential = np.empty_like(x), np.empty(len(x))
        forces(x, softening, self.a, self.potential)

    def advance(self, dt):
        """Make one step."""
        self.v += dt / 2 * self.a
        self.x += dt * self.v
        forces(self.x, self.softening, self.a, self.potential)
        self.v += dt / 2 * self.a

    def energy(self):
        """Return kinetic and potential energy."""
        return (self.v**2).sum() / 2 / len(self.x), self.potential.sum() / 2 / len(self.x)

    def position(self):
        """Return positions, of shape (n, 3)."""
        return self.x


class Card:
    """A cluster on a GPU: nbody.cu has the steps; x and v have a fourth number, for the loads."""

    def __init__(self, task, x, v, softening):
        self.gpu, self.n, self.softening = task.gpu, len(x), softening
        self.x, self.v = (self.gpu.array(np.pad(each, ((0, 0), (0, 1)))) for each in (x, v))
        self.a, self.potential = self.gpu.zeros((self.n, 4)), self.gpu.zeros(self.n)
        self._forces = self.gpu.kernel("nbody.cu", "forces", flops_per_thread=OPERATIONS * self.n)
        self._kick = self.gpu.kernel("nbody.cu", "kick")
        self._kinetic = self.gpu.kernel("nbody.cu", "kinetic")
        self._attract()

    def advance(self, dt):
        """Make one step."""
        self._kick(self.v, self.a, dt / 2, self.n, threads=self.n)
        self._kick(self.x, self.v, dt, self.n, threads=self.n)
        self._attract()
        self._kick(self.v, self.a, dt / 2, self.n, threads=self.n)

    def energy(self):
        """Return kinetic and potential energy."""
        kinetic = self.gpu.empty(self.n)
        self._kinetic(self.v, kinetic, self.n, threads=self.n)
        return tuple(self.gpu.sum(part) / self.n / 2 for part in (kinetic, self.potential))

    def position(self):
        """Return positions, of shape (n, 3)."""
        return self.gpu.to_host(self.x)[:, :3]

    def _attract(self):
        arguments = (self.x, self.a, self.potential, self.softening, self.n)
        self._forces(*arguments, threads=self.n, block=TILE)
