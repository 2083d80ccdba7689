"""What a run did on GPUs, and how near it came to what they can."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from statistics import fmean
from typing import Any

from hpckit.errors import UsageError
from hpckit.store.manifest import Manifest


@dataclass(frozen=True)
class KernelUse:
    """A kernel, over all cards of a run.

    Attributes
    ----------
    seconds
        In all launches, of all cards.
    nbytes, flops
        That it moved and computed, as the job counts; 0 where it does not.
    roof
        Operations a second that a card can do on the numbers that it computes with.
    bandwidth
        Bytes a second that a card can move.
    registers, spilled
        Of a thread; bytes of it that went to slow memory.
    """

    name: str
    calls: int
    seconds: float
    nbytes: float
    flops: float
    roof: float
    bandwidth: float
    registers: int
    spilled: int

    @property
    def intensity(self) -> float | None:
        """Operations a byte."""
        return self.flops / self.nbytes if self.nbytes and self.flops else None

    @property
    def of_bandwidth(self) -> float | None:
        """The part of the card's bandwidth that it had."""
        return self._part(self.nbytes, self.bandwidth)

    @property
    def of_roof(self) -> float | None:
        """The part of the card's operations that it had."""
        return self._part(self.flops, self.roof)

    @property
    def bound(self) -> str | None:
        """What bounds it: memory, or arithmetic; None where the job does not count."""
        parts = {"memory": self.of_bandwidth, "arithmetic": self.of_roof}
        known = {name: part for name, part in parts.items() if part is not None}
        return max(known, key=lambda name: known[name]) if known else None

    @property
    def of_bound(self) -> float | None:
        """The part of what bounds it that it had."""
        parts = [part for part in (self.of_bandwidth, self.of_roof) if part is not None]
        return max(parts, default=None)

    def _part(self, amount: float, most: float) -> float | None:
        return amount / self.seconds / most if amount and self.seconds and most else None


@dataclass(frozen=True)
class GpuUse:
    """What a run did on its cards.

    Attributes
    ----------
    cards
        Their accounts, as the manifest has them.
    kernels
        Those that took longest first.
    kernel, transfer, idle
        Parts of the time that processes had cards.
    seconds
        The run's wall time.
    """

    cards: Sequence[dict[str, Any]]
    kernels: Sequence[KernelUse]
    kernel: float
    transfer: float
    idle: float
    seconds: float

    def sentence(self) -> str:
        """Say what bounded the run."""
        parts = {"kernels": self.kernel, "transfers": self.transfer, "waiting": self.idle}
        told = ", ".join(f"{name} {part:.0%}" for name, part in parts.items())
        said = f"of the cards' time: {told}"
        if self.idle > max(self.kernel, self.transfer):
            return f"{said}; the run waits for the host most of all"
        if self.transfer > self.kernel:
            return f"{said}; moving data between host and card takes most of it"
        longest = next((k for k in self.kernels if k.bound is not None), None)
        if longest is None:
            return f"{said}; the job does not say what its kernels move and compute"
        return (
            f"{said}; {longest.name} is bound by {longest.bound}, "
            f"with {longest.of_bound:.0%} of what the card was measured to do"
        )

    def as_dict(self) -> dict[str, Any]:
        """Return it as JSON has it."""
        kernels = [
            asdict(each)
            | {"bound": each.bound, "of_bandwidth": each.of_bandwidth, "of_roof": each.of_roof}
            for each in self.kernels
        ]
        parts = {"kernel": self.kernel, "transfer": self.transfer, "idle": self.idle}
        return {"seconds": self.seconds, "parts": parts, "kernels": kernels, "cards": self.cards}


def gpu_use(manifest: Manifest) -> GpuUse:
    """Add up what a run did on its cards.

    Raises
    ------
    UsageError
        It had none.
    """
    cards = manifest.gpus
    if not cards:
        state = manifest.effective_state()
        raise UsageError(
            f"{manifest.id}: it is {state}, and has no account of GPUs: tasks leave one that have "
            "used task.gpu or run.gpu"
        )
    held = sum(card["seconds"] for card in cards) or 1.0
    kernel = sum(card["kernel_seconds"] for card in cards) / held
    transfer = sum(card["transfer_seconds"] for card in cards) / held
    idle = max(1 - kernel - transfer, 0.0)
    return GpuUse(cards, _kernels(cards), kernel, transfer, idle, manifest.seconds)


def against(use: GpuUse, manifest: Manifest, other: Manifest) -> str:
    """Say how the run compares with one on processors.

    Raises
    ------
    UsageError
        That one used cards too, or is of another job or other parameters.
    """
    if other.gpus or not other.seconds:
        raise UsageError(f"{other.id}: it is no run on processors to compare with")
    for what in ("name", "assignments", "defaults", "tasks"):
        mine, its = getattr(manifest.job, what), getattr(other.job, what)
        if mine != its:
            raise UsageError(
                f"{other.id}: it is no run of the same: its {what} is {its}, and not {mine}"
            )
    on_cards = max(sum(card["kernel_seconds"] for card in use.cards) / len(use.cards), 1e-9)
    whole, kernel = other.seconds / use.seconds, other.seconds / on_cards
    lost = "transfers" if use.transfer > use.idle else "waiting for the host"
    told = f"{whole:.3g}x as fast as {other.id}, its kernels alone {kernel:.3g}x"
    return f"{told}: {lost}" if kernel > 1.2 * whole else told


def _kernels(cards: Iterable[dict[str, Any]]) -> list[KernelUse]:
    found: dict[str, list[tuple[dict[str, Any], dict[str, float]]]] = defaultdict(list)
    for card in cards:
        for name, account in card["kernels"].items():
            found[name].append((account, card["ceilings"]))
    uses = [_kernel(name, parts) for name, parts in found.items()]
    return sorted(uses, key=lambda use: -use.seconds)


def _kernel(name: str, parts: Sequence[tuple[dict[str, Any], dict[str, float]]]) -> KernelUse:
    def total(key: str) -> float:
        return float(sum(account.get(key, 0) for account, _ in parts))

    def ceiling(key: str) -> float:
        return fmean(ceilings.get(key, 0.0) for _, ceilings in parts)

    account = parts[0][0]
    return KernelUse(
        name,
        int(total("calls")),
        total("seconds"),
        total("bytes"),
        total("flops"),
        ceiling(f"{account.get('numbers', 'float64')}_per_second"),
        ceiling("bytes_per_second"),
        account.get("registers", 0),
        account.get("spill_stores", 0) + account.get("spill_loads", 0),
    )
