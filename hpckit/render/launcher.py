"""The launch line of an MPI program."""

from __future__ import annotations

from collections.abc import Sequence


def mpiexec_argv(mpiexec: str, ranks: int, program: Sequence[str]) -> list[str]:
    """Return the line that starts `ranks` copies of a program (MPI 4.1, section 11.5)."""
    return [mpiexec, "-n", str(ranks), *program]


SHARED_MEMORY = {"OMPI_MCA_pml": "ob1", "OMPI_MCA_btl": "^tcp,ofi,usnic,uct"}
"""What tells Open MPI that no rank is on another machine; other MPIs ignore it.

Looking for networks costs Open MPI 5 a second at each start, and opens ports. (The networks are
named and not the shared memory, which Open MPI 4 calls vader and Open MPI 5 sm.)
"""


def launcher_variables(nodes: int, *, is_root: bool) -> dict[str, str]:
    """Return what Open MPI must be told to start ranks; other MPIs ignore it.

    More ranks than cores are allowed, as in every other MPI, and so is root, which is what one
    is in a container. On one node messages go through shared memory alone.
    """
    variables = {
        "PRTE_MCA_rmaps_default_mapping_policy": "slot:oversubscribe",
        "OMPI_MCA_rmaps_base_oversubscribe": "1",
        **(SHARED_MEMORY if nodes == 1 else {}),
    }
    if is_root:
        variables |= {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}
    return variables
