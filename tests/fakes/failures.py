"""How a command ends that fails."""

from __future__ import annotations


class Failure(Exception):
    """What a command says on stderr, and its exit status."""

    def __init__(self, *lines: str, status: int = 1) -> None:
        super().__init__("".join(f"{line}\n" for line in lines))
        self.status = status
