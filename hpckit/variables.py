"""The environment variables by which hpckit's batch scripts and drivers speak to its programs."""

WARNING = "HPCKIT_WARNING"
"""Which signal says that the time is nearly up, and the seconds it leaves, as ``USR1@120``."""

NTASKS = "HPCKIT_NTASKS"
"""How many ranks the launch line asked for."""

LAUNCHER = "HPCKIT_LAUNCHER"
"""The words that start the ranks of a command, as the site has it."""

DRIVER = "HPCKIT_DRIVER"
"""Which driver has launched a rank: its token."""

BROKER = "HPCKIT_BROKER"
"""The URL of the Redis server that the engine celery uses: it holds a password."""

OF_ONE_JOB = (WARNING, NTASKS, LAUNCHER, DRIVER)
"""What must not go from one job into another that is submitted from within it."""
