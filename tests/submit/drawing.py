"""A farm, and the site that the fake Slurm is."""

DRAW = """
    import os, time
    from hpckit import farm

    @farm(mem="100M", walltime="{walltime}"{options})
    def draw(task, n: int = 3):
        time.sleep(float(os.environ.get("NAP", 0)))
        if n == 99:
            raise ValueError("not 99")
        return {{"x": task.rng.random(n)}}
"""
SITE = 'launcher = "mpiexec"\nmax_array_size = 1001\nmax_submit_jobs = 500\n'
