"""How many threads the numerical libraries of a process and its children may start.

Without a limit every worker's BLAS takes the whole machine, and sums depend on its size. The
libraries read these variables when they load; those that a job file has loaded are told by
threadpoolctl, so that an engine that works in this process gives the sums of all others.
"""

from __future__ import annotations

import os
import sys

VARIABLES = {
    "openmp": "OMP_NUM_THREADS",
    "openblas": "OPENBLAS_NUM_THREADS",
    "mkl": "MKL_NUM_THREADS",
    "numba": "NUMBA_NUM_THREADS",
}
"""By library, as threadpoolctl calls those that it knows."""

_given = frozenset(name for name in VARIABLES.values() if name in os.environ)
"""What the user set, or the process that started this one."""


def thread_exports(cpus: int) -> dict[str, str]:
    """Return the environment for `cpus` threads, whatever it is here."""
    return dict.fromkeys(VARIABLES.values(), str(cpus))


def thread_variables(cpus: int) -> dict[str, str]:
    """Return the environment for `cpus` threads, without what the user has set."""
    return {name: str(cpus) for name in VARIABLES.values() if name not in _given}


def limit_threads(cpus: int) -> None:
    """Let libraries use `cpus` threads: here, those loaded by now as well, and in children."""
    wanted = thread_variables(cpus)
    if wanted.items() <= os.environ.items():
        return
    os.environ.update(wanted)
    if "numpy" in sys.modules:
        _limit_loaded(cpus)


def _limit_loaded(cpus: int) -> None:
    from threadpoolctl import ThreadpoolController  # type: ignore[import-untyped]

    loaded = ThreadpoolController()
    for library, variable in VARIABLES.items():
        if variable not in _given:
            loaded.select(internal_api=library).limit(limits=cpus)
