"""Which tasks of a farm failed, and why."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from hpckit.store.block import TaskState
from hpckit.store.blockfile import DETAILS, BlockFile
from hpckit.store.reading import reading


def failed_tasks(results: Path, limit: int) -> list[tuple[int, str]]:
    """Return index and traceback of the first `limit` failed tasks in a results.h5.

    Raises
    ------
    StoreError
        It does not read back.
    """
    with reading(results) as file:
        failed = np.flatnonzero(BlockFile.checked(file).state == TaskState.FAILED)[:limit]
        texts = file[f"{DETAILS}/error"].asstr() if len(failed) else {}
        return [(int(index), str(texts[int(index)])) for index in failed]
