"""Messages between a driver and its workers: what it is, of which call, a length, the rest."""

from __future__ import annotations

import asyncio
import struct
from asyncio import StreamReader, StreamWriter
from socket import socket
from typing import NamedTuple

CALL, RESULT, FAILURE, RECALL, GIVEN_BACK, END = b"C", b"R", b"F", b"X", b"B", b"E"

_HEAD = struct.Struct("!cQQ")


class Message(NamedTuple):
    """A message.

    Attributes
    ----------
    number
        Of the call that it is about.
    """

    kind: bytes
    number: int
    payload: bytes = b""

    def pieces(self) -> list[bytes]:
        """Return what is sent, one after another."""
        return [_HEAD.pack(self.kind, self.number, len(self.payload)), self.payload]


def send(channel: socket, message: Message) -> None:
    """Send a message; one sender at a time."""
    for piece in message.pieces():
        channel.sendall(piece)


def receive(channel: socket) -> Message | None:
    """Return the next message, None at the end of the channel."""
    head = _read(channel, _HEAD.size)
    if head is None:
        return None
    kind, number, length = _HEAD.unpack(head)
    payload = _read(channel, length)
    return None if payload is None else Message(kind, number, payload)


async def open_both_ways(channel: socket) -> tuple[StreamReader, StreamWriter, StreamWriter]:
    """Return what reads from a socket, the transport's end of it, and what writes to it.

    The two ways are apart, since asyncio closes what fails to write: what the other end said
    before it ended would be lost unread.
    """
    reader, incoming = await asyncio.open_connection(sock=channel, limit=1 << 22)
    _, outgoing = await asyncio.open_connection(sock=channel.dup())
    outgoing.transport.pause_reading()  # type: ignore[attr-defined]
    return reader, incoming, outgoing


async def receive_async(reader: StreamReader) -> Message:
    """Return the next message.

    Raises
    ------
    asyncio.IncompleteReadError, ConnectionError
        The channel is at its end.
    """
    kind, number, length = _HEAD.unpack(await reader.readexactly(_HEAD.size))
    return Message(kind, number, await reader.readexactly(length))


def _read(channel: socket, length: int) -> bytes | None:
    data = bytearray(length)
    view = memoryview(data)
    while view:
        try:
            count = channel.recv_into(view)
        except ConnectionError:
            return None
        if not count:
            return None
        view = view[count:]
    return bytes(data)
