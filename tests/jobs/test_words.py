"""The words job over the source of Python's own library, against one plain Counter."""

from __future__ import annotations

import sysconfig
from collections import Counter
from itertools import groupby
from pathlib import Path

LIBRARY = Path(sysconfig.get_path("stdlib")) / "email"


def words_of(text):
    """Split a text into words in another way than the job does: letter by letter."""
    # What a digit or an underscore is part of is no word, but for the letters beside it.
    for is_word, run in groupby(text.lower(), lambda c: c.isalpha() or c in "'’"):
        if is_word:
            parts = "".join(run).replace("’", "'").split("'")
            for filled, group in groupby(parts, bool):
                if filled:
                    yield "'".join(group)


def test_the_counts_are_those_of_one_counter(run_farm):
    files = sorted(LIBRARY.rglob("*.py"))
    assert len(files) > 20
    wanted = Counter()
    for path in files:
        text = path.read_text(encoding="utf-8", errors="replace")
        wanted.update(words_of(text))

    found = run_farm("words.py", f"file={LIBRARY}/**/*.py")
    counts = dict(zip(found["key"].values, found["count"].values.tolist(), strict=True))
    assert counts == wanted
    assert found["file"].values.tolist() == [str(path) for path in files]
    assert (found["task_state"] == 1).all()
    assert found["count"].sum() > 10_000
