"""A farm: pi by throwing darts, once for each parameter point."""

from hpckit import farm


@farm(cpus_per_task=1, mem="500M", walltime="10m")
def pi(task, darts: int = 100_000):
    """Estimate pi from the share of random points that fall into the quarter circle."""
    x, y = task.rng.random((2, darts))
    return {"estimate": 4 * (x**2 + y**2 < 1).mean()}
