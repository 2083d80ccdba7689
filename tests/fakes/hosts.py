"""Lists of nodes, such as `n[1-3,7],login`."""

from __future__ import annotations

import re
from collections.abc import Iterable

from fakes import indices

_PART = re.compile(r"([^,\[]+)(?:\[([^\]]*)\])?(?:,|$)")
_NUMBERED = re.compile(r"(.*?)(0|[1-9]\d*)")


def expand(text: str) -> list[str]:
    """Return all nodes of a list."""
    nodes = []
    for prefix, numbers in _PART.findall(text):
        ends = map(str, indices.numbers(numbers)) if numbers else [""]
        nodes += [prefix + end for end in ends]
    return nodes


def show(nodes: Iterable[str]) -> str:
    """Return nodes as Slurm writes them."""
    groups: dict[str, list[int]] = {}
    for node in nodes:
        match = _NUMBERED.fullmatch(node)
        prefix, number = match.groups() if match else (node, None)
        groups.setdefault(prefix, []).extend([] if number is None else [int(number)])
    return ",".join(_group(prefix, numbers) for prefix, numbers in groups.items())


def _group(prefix: str, numbers: list[int]) -> str:
    if len(numbers) < 2:
        return prefix + "".join(map(str, numbers))
    return f"{prefix}[{indices.ranges(sorted(numbers))}]"
