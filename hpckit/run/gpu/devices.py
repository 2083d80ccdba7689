"""The cards that a process sees."""

from __future__ import annotations

from dataclasses import dataclass

from hpckit.run.gpu import claims, driver


@dataclass(frozen=True)
class Device:
    """A card.

    Attributes
    ----------
    holders
        Processes of this user whose tasks have it, by their ids.
    """

    name: str
    uuid: str
    capability: str
    memory_bytes: int
    holders: tuple[str, ...]


def devices() -> list[Device]:
    """Look at all cards.

    Raises
    ------
    LaunchError
        There is no PyCUDA, no driver or no card.
    """
    cuda = driver.load()
    found = []
    for ordinal in range(cuda.Device.count()):
        device, uuid = cuda.Device(ordinal), driver.uuid(ordinal)
        capability = ".".join(map(str, device.compute_capability()))
        holders = tuple(claims.holders([uuid]))
        found.append(Device(device.name(), uuid, capability, device.total_memory(), holders))
    return found
