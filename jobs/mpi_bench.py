"""What the MPI and the file system of a site give a program: a benchmark on N >= 2 ranks.

Ping-pong     Ranks 0 and N - 1, which are on two nodes if ranks fill one after the other, send
              a message to and fro. One way takes half of it; bandwidth is bytes / that time:
              PingPong of the Intel MPI Benchmarks (see their user guide) and osu_latency of the
              OSU Micro-Benchmarks, https://mvapich.cse.ohio-state.edu/benchmarks/.
Window        64 messages under way at once, and one answer to them all: osu_bw of OSU.
Allreduce     The sum of a vector of float64 over all ranks, until the last rank has it.
Halo          The block of each rank, n x n float64, gets the edges of its neighbours on four
              sides, in a periodic grid of ranks: some are the rank itself where that is narrow.
Files         A file per process, as in IOR, https://ior.readthedocs.io: written with fsync, and
              read back by the same rank. In between, the page cache is asked to forget it. It
              need not, nor need a server's: what is read may come from memory.
Statistics    Medians of repetitions, each the time of the slowest rank, after some to warm up:
              Hoefler & Belli, Scientific benchmarking of parallel computing systems, SC15.

Contents change with each repetition and are checked where they arrive. Short messages take
Python's time too; persistent requests, in place of Send, Isend and Irecv, keep it small.
"""

from __future__ import annotations

import os
import time
from tempfile import TemporaryFile

import numpy as np

from hpckit import spmd
from hpckit.errors import HpckitError, UsageError

WARM_UP = 2
WINDOW = 64
# Round trips in a repetition: many if they are short, for the clock and for Python's own calls.
MAX_TRIPS, TRIP_BYTES = 100, 1 << 22
FLOAT = 8  # bytes of a float64
US = 1e6  # microseconds in a second


def check(ranks, max_bytes, least, folder):
    """Refuse what cannot be measured; `least` is the smallest of the other parameters."""
    if ranks < 2:
        raise UsageError("mpi_bench measures what goes between ranks, at least 2: --ranks 2")
    if max_bytes < FLOAT or least < 1:
        raise UsageError(f"max_bytes must be at least {FLOAT}, and all other numbers at least 1")
    try:
        TemporaryFile(dir=folder).close()
    except OSError as error:
        raise UsageError(f"folder={folder!r}: cannot make a file in it: {error.strerror}") from None


def pattern(size):
    """Return numbers from 0 to 250; their prime period shows a shift by any power of two."""
    return np.arange(size) % 251


def compare(what, arrived, expected):
    """End the run unless what arrived is what was sent: its time would mean nothing."""
    if not np.array_equal(arrived, expected):
        raise HpckitError(f"{what}: what arrived is not what was sent")


def timed(comm, action, *arguments):
    """Return the seconds of `action` on this rank, from a barrier on."""
    comm.Barrier()
    start = time.perf_counter()
    action(*arguments)
    return time.perf_counter() - start


def slowest(comm, times):
    """Return for each repetition the longest time of all ranks, without those to warm up."""
    return comm.allreduce(np.array(times[WARM_UP:]), op=np.maximum)


def ping_pong(pair, nbytes, repeats):
    """Return the seconds that a message of `nbytes` takes one way."""
    message, inbox = pattern(nbytes).astype(np.uint8), np.zeros(nbytes, np.uint8)
    send = pair.Send_init(message, dest=1 - pair.rank)
    receive = pair.Recv_init(inbox, source=1 - pair.rank)
    steps = (send, receive) if pair.rank == 0 else (receive, send)
    trips = min(MAX_TRIPS, max(1, TRIP_BYTES // nbytes))
    times = []
    for _ in range(WARM_UP + repeats):
        message += 1
        times.append(timed(pair, in_turn, steps, trips))
        compare(f"ping-pong of {nbytes} bytes", inbox, message)
    free(steps)
    return np.median(slowest(pair, times)) / trips / 2


def window(pair, nbytes, repeats):
    """Return the seconds in which `WINDOW` messages of `nbytes` arrive and are answered."""
    message, inbox = pattern(nbytes).astype(np.uint8), []
    if pair.rank == 0:
        requests = [pair.Send_init(message, dest=1) for _ in range(WINDOW)]
    else:
        inbox = np.zeros((WINDOW, nbytes), np.uint8)
        requests = [pair.Recv_init(row, source=0) for row in inbox]
    times = []
    for _ in range(WARM_UP + repeats):
        message += 1
        # The sender's barrier ends with the receiver's, which is the answer.
        times.append(timed(pair, lambda: (at_once(requests), pair.Barrier())))
        for row in inbox:
            compare(f"window of {nbytes} bytes", row, message)
    free(requests)
    return np.median(slowest(pair, times))


def in_turn(requests, times):
    """Complete one request after the other, all of them `times` times."""
    for _ in range(times):
        for request in requests:
            request.Start()
            request.Wait()


def at_once(requests):
    """Start all requests, then complete them."""
    requests[0].Startall(requests)
    requests[0].Waitall(requests)


def free(handles):
    """Give requests and types back to MPI."""
    for handle in handles:
        handle.Free()


def allreduce(comm, nbytes, repeats):
    """Return the seconds of a sum over all ranks, of whole numbers, which add up exactly."""
    numbers = pattern(nbytes // FLOAT).astype(np.float64)
    own, total = numbers + comm.rank, np.zeros_like(numbers)
    expected = numbers * comm.size + comm.size * (comm.size - 1) / 2
    times = []
    for _ in range(WARM_UP + repeats):
        own += 1
        expected += comm.size
        times.append(timed(comm, comm.Allreduce, own, total))
        compare(f"allreduce of {nbytes} bytes", total, expected)
    return np.median(slowest(comm, times))


def halo(comm, n, repeats):
    """Return the seconds of each exchange of the halo of a block of n x n float64."""
    from mpi4py import MPI  # not at the top: importing it starts MPI, also where no rank runs

    grid = comm.Create_cart(MPI.Compute_dims(comm.size, 2), periods=(True, True))
    column = MPI.DOUBLE.Create_vector(n, 1, n + 2).Commit()
    expected = numbered(grid, n)
    block = np.zeros_like(expected)
    requests = neighbours(grid, block, column)
    times = []
    for _ in range(WARM_UP + repeats):
        expected += 1
        block[1:-1, 1:-1] = expected[1:-1, 1:-1]
        times.append(timed(grid, at_once, requests))
        for edge in np.s_[0, 1:-1], np.s_[-1, 1:-1], np.s_[1:-1, 0], np.s_[1:-1, -1]:
            compare(f"halo of {n} x {n} values", block[edge], expected[edge])
    free([*requests, column, grid])
    return slowest(comm, times)


def numbered(grid, n):
    """Return a block and its halo, each cell with its number in the whole, periodic domain."""
    height, width = (ranks * n for ranks in grid.dims)
    j, i = (np.arange(at * n - 1, at * n + n + 1) for at in grid.coords)
    return (j[:, None] % height * width + i % width).astype(np.float64)


def neighbours(grid, block, column):
    """Return persistent requests that fill the halo; the type `column` steps row by row."""
    (up, down), (left, right) = grid.Shift(0, 1), grid.Shift(1, 1)
    n, from_row_1 = len(block) - 2, block[1:].reshape(-1)
    rows = [block[j, 1:-1] for j in (0, 1, n, n + 1)]
    columns = [[from_row_1[i:], 1, column] for i in (0, 1, n, n + 1)]
    requests = []
    for axis, (lines, before, after) in enumerate([(rows, up, down), (columns, left, right)]):
        requests += [  # a tag for each direction, since two of them may lead to the same rank
            grid.Recv_init(lines[0], source=before, tag=axis),
            grid.Recv_init(lines[3], source=after, tag=2 + axis),
            grid.Send_init(lines[2], dest=after, tag=axis),
            grid.Send_init(lines[1], dest=before, tag=2 + axis),
        ]
    return requests


def write_and_read(comm, folder, data):
    """Return the seconds that this rank takes to write `data`, and to read it back.

    The file has no name, or loses it at once: it is gone however the rank ends.
    """
    back = np.zeros_like(data)
    with TemporaryFile(dir=folder) as f:
        writing = timed(comm, lambda: (f.write(data), f.flush(), os.fsync(f.fileno())))
        os.posix_fadvise(f.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        f.seek(0)
        reading = timed(comm, f.readinto, back)
    compare(f"file of {data.nbytes} bytes", back, data)
    return writing, reading


def save_places(run):
    """Save which rank is on which node: those that share memory are on one."""
    from mpi4py import MPI

    node = run.comm.Split_type(MPI.COMM_TYPE_SHARED)
    firsts = run.comm.allgather(node.bcast(run.rank))
    numbers = [sorted(set(firsts)).index(first) for first in firsts]
    number = numbers[run.rank]
    if run.rank == 0:
        library = MPI.Get_library_version().splitlines()[0].split(",")[0]
        run.log(f"{' '.join(library.split())}; ranks: {run.size}, nodes: {max(numbers) + 1}")
    if node.rank == 0:  # hpckit shows what rank 0 says, and `hpckit logs` what all say
        crowded = ", which take turns on fewer cores" * (node.size > os.cpu_count())
        run.log(f"node {number}: {MPI.Get_processor_name()}, ranks: {node.size}{crowded}")
    node.Free()
    own = {"offset": [run.rank], "shape": [run.size], "dims": ["rank"], "units": "1"}
    run.save("node_of_rank", [number], long_name="node of the rank", **own)
    counts = np.bincount(numbers)
    run.save("ranks_on_node", counts, dims=["node"], units="1", long_name="ranks on the node")


def save_point_to_point(run, sizes, repeats):
    """Save latency and bandwidth between the first and the last rank; the others wait."""
    at_end = run.rank in (0, run.size - 1)
    pair = run.comm.Split(at_end)
    if at_end:
        one_way = np.array([ping_pong(pair, size, repeats) for size in sizes.tolist()])
        windows = np.array([window(pair, size, repeats) for size in sizes.tolist()])
    pair.Free()
    if run.rank == 0:
        what = f"between ranks 0 and {run.size - 1}"
        along, rate = {"dims": ["bytes"]}, {"dims": ["bytes"], "units": "bytes/s"}
        run.save("bytes", sizes, units="bytes", long_name="size of a message", **along)
        run.save("latency", one_way * US, units="us", long_name=f"one-way time {what}", **along)
        name = f"bandwidth of ping-pong {what}"
        run.save("bandwidth", sizes / one_way, long_name=name, **rate)
        name = f"bandwidth of {WINDOW} messages at once {what}"
        run.save("window_bandwidth", WINDOW * sizes / windows, long_name=name, **rate)


def save_allreduce(run, sizes, repeats):
    """Save the times of allreduce."""
    times = np.array([allreduce(run.comm, size, repeats) for size in sizes.tolist()])
    along = {"dims": ["allreduce_bytes"]}
    run.save("allreduce_bytes", sizes, units="bytes", long_name="size of the vector", **along)
    run.save("allreduce_time", times * US, units="us", long_name="time of allreduce", **along)


def save_halo(run, n, repeats):
    """Save time and bandwidth of a halo exchange, and record how the time varies."""
    times = halo(run.comm, n, repeats)
    for step, seconds in enumerate(times):
        run.record("halo_us", seconds * US, step=step)
    typical, name = np.median(times), "bytes that a rank sends / time of a halo exchange"
    run.save("halo_time", typical * US, units="us", long_name="time of a halo exchange")
    run.save("halo_bandwidth", 4 * n * FLOAT / typical, units="bytes/s", long_name=name)


def save_files(run, folder, io_bytes, repeats):
    """Save the bandwidth of all ranks together, for data that no file system can compress."""
    data = np.frombuffer(run.rng.bytes(io_bytes), np.uint8)
    times = [write_and_read(run.comm, folder, data) for _ in range(WARM_UP + repeats)]
    writing, reading = run.size * io_bytes / slowest(run.comm, times).T
    rate = {"dims": ["repetition"], "units": "bytes/s"}
    run.save("write_bandwidth", writing, long_name="writing and fsync, all ranks", **rate)
    run.save("read_bandwidth", reading, long_name="reading, perhaps memory, all ranks", **rate)


@spmd(ntasks=2, mem_per_cpu="1G", walltime="10m")
def mpi_bench(
    run,
    max_bytes: int = 1 << 20,
    repeats: int = 20,
    n: int = 256,
    io_bytes: int = 1 << 24,
    io_repeats: int = 3,
    folder: str = ".",
):
    """Measure messages of 1, 2, 4 ... `max_bytes` bytes, a halo of n x n, and files in `folder`.

    A window takes 64 `max_bytes` of memory; a file has `io_bytes`, one at a time for each rank.
    """
    check(run.size, max_bytes, min(repeats, n, io_bytes, io_repeats), folder)
    sizes = 1 << np.arange(max_bytes.bit_length())
    save_places(run)
    save_point_to_point(run, sizes, repeats)
    run.progress(1, 4)
    save_allreduce(run, sizes[sizes >= FLOAT], repeats)
    run.progress(2, 4)
    save_halo(run, n, repeats)
    run.progress(3, 4)
    save_files(run, folder, io_bytes, io_repeats)
    run.progress(4, 4)
