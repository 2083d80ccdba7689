"""The compiler's report, and the block that fills a card best."""

from __future__ import annotations

import pytest
from gpu_here import toolkit

from hpckit.errors import LaunchError
from hpckit.run.gpu.compiler import Cubin, Needs, needs_of
from hpckit.run.gpu.kernel import best_block, resident, symbol_of

REPORT = """\
ptxas info    : 0 bytes gmem
ptxas info    : Compiling entry function '_Z3sumPd' for 'sm_80'
ptxas info    : Function properties for _Z3sumPd
    16 bytes stack frame, 8 bytes spill stores, 12 bytes spill loads
ptxas info    : Used 40 registers, used 1 barriers, 1024 bytes smem, 364 bytes cmem[0]
ptxas info    : Compiling entry function 'plain' for 'sm_80'
ptxas info    : Function properties for plain
    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 8 registers, used 0 barriers, 372 bytes cmem[0]
"""

A100 = {"threads": 2048, "registers": 65536, "shared": 167936, "threads_per_block": 1024}


def test_the_report_is_read():
    assert needs_of(REPORT) == {"_Z3sumPd": Needs(40, 16, 8, 12, 1024), "plain": Needs(8)}


def test_kernels_by_their_names():
    cubin = Cubin(b"", needs_of(REPORT) | {"_Z3sumPf": Needs(), "_Z6othersPd": Needs()})
    assert symbol_of(cubin, "plain") == "plain"
    with pytest.raises(LaunchError, match="_Z3sumPd, _Z3sumPf"):
        symbol_of(cubin, "sum")
    with pytest.raises(LaunchError, match="none of that name; its kernels are"):
        symbol_of(cubin, "other")


OCCUPANCY = """
#include <cstdio>
#include <cuda_occupancy.h>
int main()
{
    cudaOccDeviceProp card = {};
    card.computeMajor = 8;
    card.maxThreadsPerBlock = 1024;
    card.maxThreadsPerMultiprocessor = 2048;
    card.regsPerBlock = card.regsPerMultiprocessor = 65536;
    card.warpSize = 32;
    card.sharedMemPerBlock = 49152;
    card.sharedMemPerMultiprocessor = 167936;
    card.sharedMemPerBlockOptin = 166912;
    card.reservedSharedMemPerBlock = 1024;
    card.numSms = 108;
    cudaOccDeviceState state = {};
    for (int registers = 16; registers <= 255; registers += 7)
        for (int shared = 0; shared <= 48000; shared += 4800)
            for (int size = 128; size <= 1024; size += 32) {
                cudaOccFuncAttributes kernel = {};
                kernel.maxThreadsPerBlock = 1024;
                kernel.numRegs = registers;
                kernel.sharedSizeBytes = shared;
                cudaOccResult result;
                cudaOccMaxActiveBlocksPerMultiprocessor(&result, &card, &kernel, &state, size, 0);
                int blocks = result.activeBlocksPerMultiprocessor;
                printf("%d %d %d %d\\n", registers, shared, size, blocks * size);
            }
}
"""


def test_as_many_threads_are_on_a_multiprocessor_as_nvidia_says(cards):
    (cards.directory / "occupancy.cpp").write_text(OCCUPANCY)
    argv = ["g++", "-w", f"-I{toolkit()}/include", "occupancy.cpp", "-o", "occupancy"]
    assert cards.popen(argv).wait(60) == 0
    told, _ = cards.popen(["./occupancy"]).communicate(timeout=60)
    rows = [tuple(map(int, line.split())) for line in told.splitlines()]
    assert len(rows) > 5_000
    for registers, shared, size, threads in rows:
        needs = Needs(registers, shared_bytes=shared)
        assert resident(size, A100, needs) == threads, (registers, shared, size)


@pytest.mark.parametrize(
    ("needs", "block"), [(Needs(32), 128), (Needs(72), 128), (Needs(40, shared_bytes=90000), 1024)]
)
def test_the_smallest_block_of_those_that_fill_a_card_best(needs, block):
    assert best_block(A100, needs, 1024) == block
    assert best_block(A100, needs, 64) == 64
