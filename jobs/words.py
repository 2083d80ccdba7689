"""Which words stand how often in many files: each file is a task, the counts are merged.

hpckit run words "file=texts/*.txt"
"""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

from hpckit import farm

WORD = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)*")


def together(counts: Counter[str], others: Counter[str]) -> Counter[str]:
    """Add the counts of some files to those of others."""
    counts.update(others)
    return counts


@farm(
    cpus_per_task=1,
    mem="1G",
    walltime="30m",
    reduce=together,
    attrs={
        "key": {"long_name": "word, in lower case"},
        "count": {"units": "1", "long_name": "how often it stands in all files"},
    },
)
def words(file: Path):
    """Count the words of a text: letters, with apostrophes between them."""
    counts: Counter[str] = Counter()
    with file.open(encoding="utf-8", errors="replace") as lines:
        for line in lines:
            counts.update(WORD.findall(line.lower()))
    return counts
