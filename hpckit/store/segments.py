"""Sealed results of a farm on their way to results.h5.

A segment is written under a temporary name, synced, then renamed; its name ends in the
checksum of its content. Segments of one level are merged into one of the next when there
are `FANOUT` of them, as in a log-structured merge tree (O'Neil et al., Acta Informatica
33, 1996): the files stay few however many tasks there are, and each result is rewritten
only a few times.
"""

from __future__ import annotations

import re
import secrets
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from hpckit.store.arrays import Arrays, Spill
from hpckit.store.atomic import explained, write_bytes
from hpckit.store.block import Block, merged
from hpckit.store.blockfile import BlockFile, block_image
from hpckit.store.merging import Merge
from hpckit.store.neighbours import is_worth_merging
from hpckit.store.neighbours import merged as merged_partials
from hpckit.store.partialfiles import Scattered
from hpckit.store.partials import joined
from hpckit.store.reading import reading

FANOUT = 8
LEVELS = 10
LARGE = 32 << 20
"""Bytes above which a segment is left as it is: merging it saves too few files."""

SEAL_SECONDS, MERGE_SECONDS = 0.2, 2.0
"""After which no more partial results are merged when blocks are sealed, and when segments are
merged: the driver has other work."""

_NAME = re.compile(r"(?P<writer>\w+)-(?P<level>\d)-(?P<number>\d{6,})-(?P<crc>[0-9a-f]{8})\.h5")


@dataclass(frozen=True)
class Segment:
    """One sealed file."""

    path: Path
    writer: str
    level: int
    number: int
    crc: int

    @classmethod
    def named(cls, path: Path) -> Segment | None:
        """Return the segment that a file name describes, None for any other file."""
        match = _NAME.fullmatch(path.name)
        if match is None:
            return None
        return cls(
            path, match["writer"], int(match["level"]), int(match["number"]), int(match["crc"], 16)
        )

    def is_intact(self) -> bool:
        """Compare the file's content with its checksum."""
        crc = 0
        with self.path.open("rb") as stream:
            while chunk := stream.read(1 << 22):
                crc = zlib.crc32(chunk, crc)
        return crc == self.crc


class SegmentWriter:
    """Seals blocks in a folder; many writers may share it."""

    def __init__(self, folder: Path, prefix: str = "w", merge: Merge | None = None) -> None:
        self.folder = folder
        self.merge = merge
        self.writer = f"{prefix}{secrets.token_hex(4)}"
        self.number = 0
        self.spill = Spill(folder)
        self.levels: dict[int, list[Segment]] = {}
        """Those that wait to be merged."""

    def seal(self, blocks: Sequence[Block]) -> None:
        """Write blocks as one segment; they are safe when this returns.

        Raises
        ------
        StoreError
            The segment cannot be written. What was sealed before is untouched.
        """
        self._write(self._joined(blocks), level=0)
        self._compact()

    def merge_all(self) -> None:
        """Merge the segments of this writer, which is done, into one as far as memory allows.

        Raises
        ------
        StoreError
            The segment cannot be written. What was sealed before is untouched.
        """
        segments = [segment for level in self.levels.values() for segment in level]
        segments.sort(key=lambda segment: segment.path.stat().st_size)
        while not self._is_worth_it(segments):
            segments.pop()
        if len(segments) > 1:
            self._write(self._merged(segments), LEVELS - 1)
            remove(segments)
            self.levels = {}

    def _joined(self, blocks: Sequence[Block]) -> Block:
        block = merged(self.spill.alike(blocks))
        parts = [block.partials for block in blocks if block.partials is not None]
        if not parts or self.merge is None:
            return block
        return replace(block, partials=merged_partials(joined(parts), self.merge, SEAL_SECONDS))

    def _merged(self, segments: Sequence[Segment]) -> Block:
        block = self._joined([_read(segment) for segment in segments])
        if self.merge is None:
            return block
        partials = Scattered.over([segment.path for segment in segments])
        return replace(block, partials=merged_partials(partials, self.merge, MERGE_SECONDS))

    def _is_worth_it(self, segments: Sequence[Segment]) -> bool:
        """Tell whether memory allows to merge segments, large ones with partial results too."""
        if sum(segment.path.stat().st_size for segment in segments) <= FANOUT * LARGE:
            return True
        return self.merge is not None and is_worth_merging(
            Scattered.over([segment.path for segment in segments])
        )

    def _write(self, block: Block, level: int) -> None:
        image = block_image(block)
        self.number += 1
        name = f"{self.writer}-{level}-{self.number:06d}-{zlib.crc32(image):08x}.h5"
        path = self.folder / name
        write_bytes(path, image)
        segment = Segment.named(path)
        assert segment is not None
        # Partial results become fewer when they are merged, however large they are.
        if len(image) <= LARGE or block.partials is not None:
            self.levels.setdefault(level, []).append(segment)

    def _compact(self) -> None:
        for level in range(LEVELS - 1):
            segments = self.levels.get(level, [])
            if len(segments) < FANOUT:
                return
            if self._is_worth_it(segments):
                self._write(self._merged(segments), level + 1)
                remove(segments)
            self.levels[level] = []


def list_segments(folder: Path, prefix: str = "w") -> list[Segment]:
    """Return the sealed segments of a folder, in the order in which they were written.

    Parameters
    ----------
    prefix
        Of the names of those that are wanted.
    """
    found = [Segment.named(path) for path in folder.glob(f"{prefix}*.h5")]
    segments = [segment for segment in found if segment is not None]
    return sorted(segments, key=lambda s: (s.path.stat().st_mtime_ns, s.writer, s.number))


def set_aside_damaged(folder: Path, prefix: str = "w") -> list[Path]:
    """Rename segments that fail their checksum to ``*.damaged`` and return the new paths.

    Their tasks count as missing from then on and are done again. Of a segment that refers to
    rows that are damaged, the others are kept in a new one.
    """
    aside = []
    for segment in list_segments(folder, prefix):
        if not segment.is_intact():
            aside.append(_set_aside(segment))
        elif (block := _with_damaged_arrays(segment)) is not None:
            if len(block):
                SegmentWriter(folder, prefix).seal([block])
            aside.append(_set_aside(segment))
    return aside


def _set_aside(segment: Segment) -> Path:
    return segment.path.rename(segment.path.with_suffix(".damaged"))


def _with_damaged_arrays(segment: Segment) -> Block | None:
    """Return what is left of a segment that refers to damaged rows; None if it refers to none."""
    with reading(segment.path) as file:
        source = BlockFile(file)
        bad = np.zeros(len(source.task), bool)
        arrays = Arrays(segment.path.parent)
        for name in source.stored_names:
            bad |= arrays.damaged(source.stored(name, 0, len(bad)).values)
        return source.read(0, len(bad)).only(~bad) if bad.any() else None


def remove_half_written(folder: Path) -> None:
    """Remove what killed writers left half-written."""
    with explained(folder):
        for leftover in folder.glob(".w*.tmp"):
            leftover.unlink(missing_ok=True)


def remove(segments: Iterable[Segment]) -> None:
    """Remove some segments."""
    for segment in segments:
        with explained(segment.path):
            segment.path.unlink(missing_ok=True)


def _read(segment: Segment) -> Block:
    with reading(segment.path) as file:
        source = BlockFile(file)
        return source.read(0, len(source.task))
