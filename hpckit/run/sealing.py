"""When results go to disk: often enough to lose little, seldom enough to cost little."""

from __future__ import annotations

import time

from hpckit.processes import uninterrupted
from hpckit.store.block import Block
from hpckit.store.segments import SegmentWriter

SEAL_SECONDS = 1.0
SEAL_BYTES = 64 << 20


class Sealer:
    """Collects blocks and seals them by time and size."""

    def __init__(self, writer: SegmentWriter) -> None:
        self.writer = writer
        self.blocks: list[Block] = []
        self.bytes = 0
        self.sealed_at = time.monotonic()

    def add(self, block: Block) -> None:
        """Take a block."""
        self.blocks.append(block)
        self.bytes += block.nbytes

    def seal_if_due(self) -> bool:
        """Seal when enough time has gone by or enough has come together; tell whether it did."""
        due = time.monotonic() - self.sealed_at >= SEAL_SECONDS
        if not self.blocks or not (due or self.bytes >= SEAL_BYTES):
            return False
        self.seal()
        return True

    def seal(self) -> None:
        """Seal what there is.

        Raises
        ------
        StoreError
            It cannot be written; the blocks are still there, to be sealed once it can.
        """
        if self.blocks:
            with uninterrupted():
                self.writer.seal(self.blocks)
                self.blocks = []
                self.bytes = 0
        self.sealed_at = time.monotonic()
