"""The environment variables by which hpckit's batch scripts and drivers speak to its programs."""

WARNING = "HPCKIT_WARNING"
"""Which signal says that the time is nearly up, and the seconds it leaves, as ``USR1@120``."""

NTASKS = "HPCKIT_NTASKS"
"""How many ranks the launch line asked for."""

LAUNCHER = "HPCKIT_LAUNCHER"
"""The words that start the ranks of a command, as the site has it."""

DRIVER = "HPCKIT_DRIVER"
"""Which driver has launched a rank: its token."""

IMAGE = "HPCKIT_IMAGE"
"""Which image programs are started in: what the manifest keeps of it, as JSON."""

BROKER = "HPCKIT_BROKER"
"""The URL of the Redis server that the engine celery uses: it holds a password."""

BEGAN = "HPCKIT_BEGAN"
"""When a pilot's batch script began, before the prologue, in seconds since the epoch."""

OF_ONE_JOB = (WARNING, NTASKS, LAUNCHER, DRIVER, IMAGE, BEGAN)
"""What must not go from one job into another that is submitted from within it."""
