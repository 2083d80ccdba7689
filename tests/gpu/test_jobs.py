"""The example jobs on a card against the processor, and against what is known."""

from __future__ import annotations

import json
import re

import h5py
import numpy as np
import pytest
from gpu_here import ROOT

from hpckit.run.context import stream


def run(cards, *arguments):
    ended = cards("run", *arguments, "--gpus-per-task", 1)
    assert ended.code == 0, ended.stderr
    return h5py.File(cards.last() / "results.h5")


@pytest.mark.parametrize("ranks", [1, 2, 3])
def test_cavity_is_the_same_bit_for_bit(cards, ranks):
    flow = ("cavity", "n=13", "reynolds=50", "max_time=2", "--ranks", ranks)
    assert cards("run", *flow).code == 0
    on_host = cards.digest()
    slow = {"SOFTWARE_GPUS": "3", "SOFTWARE_GPU_JITTER": "20"}
    assert cards("run", *flow, "--gpus-per-task", 1, env=slow).code == 0
    assert cards.digest() == on_host
    assert len({card["uuid"] for card in cards.manifest().gpus}) == ranks


def test_cavity_goes_on_from_its_checkpoint(cards):
    flow = ("run", "cavity", "n=12", "max_time=6", "--ranks", 2, "--gpus-per-task", 1)
    process = cards.start(*flow)
    cards.until(lambda: list(cards.directory.glob("runs/*/checkpoint/*")), "a checkpoint")
    process.send_signal(2)
    process.communicate(timeout=60)
    assert cards.manifest().state == "interrupted"
    assert len(cards.manifest().gpus) == 0
    assert cards("resume", "last").code == 0
    resumed = cards.digest()
    # Two of each session: what was done before the interruption counts.
    assert len(cards.manifest().gpus) == 4
    assert cards(*flow).code == 0
    assert cards.digest() == resumed


def philox(counter, key):
    """Philox4x32-10 of Salmon et al. (2011), of arrays of counters."""
    c = [np.asarray(word, np.uint64) for word in counter]
    low = np.uint64(0xFFFFFFFF)
    k0, k1 = (np.uint64(word) for word in key)
    for _ in range(10):
        a, b = np.uint64(0xD2511F53) * c[0], np.uint64(0xCD9E8D57) * c[2]
        c = [(b >> np.uint64(32)) ^ c[1] ^ k0, b & low, (a >> np.uint64(32)) ^ c[3] ^ k1, a & low]
        k0, k1 = (k0 + np.uint64(0x9E3779B9)) & low, (k1 + np.uint64(0xBB67AE85)) & low
    return c


# The known answers that come with Random123, the authors' library (kat_vectors).
@pytest.mark.parametrize(
    ("counter", "key", "words"),
    [
        ([0] * 4, [0] * 2, [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]),
        ([0xFFFFFFFF] * 4, [0xFFFFFFFF] * 2, [0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD]),
        (
            [0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344],
            [0xA4093822, 0x299F31D0],
            [0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1],
        ),
    ],
)
def test_the_reference_of_the_random_numbers(counter, key, words):
    assert [int(word) for word in philox(counter, key)] == words


def heat_bath(key, T, L, sweeps):
    """The job's algorithm in NumPy: |m| and energy after each sweep, from all spins up."""
    up = (1 / (1 + np.exp(-2 * np.arange(-4, 5, 2) / T)) * 2**32).astype(np.uint64)
    spins = np.ones((L, L), int)
    j, i = np.indices((L, L))
    k = i // 2
    values = []

    def around():
        return sum(np.roll(spins, step, axis) for axis in (0, 1) for step in (-1, 1))

    for sweep in range(sweeps // 4 + sweeps):
        for colour in (0, 1):
            words = np.array(
                philox([k // 4 * 4, j, np.full_like(j, sweep), np.full_like(j, colour)], key)
            )
            word = np.take_along_axis(words, (k % 4)[None], 0)[0]
            new = np.where(word < up[(around() + 4) // 2], 1, -1)
            spins = np.where((i + j) % 2 == colour, new, spins)
        if sweep >= sweeps // 4:
            values.append((abs(spins.sum()) / L**2, -(spins * around()).sum() / 2 / L**2))
    return np.transpose(values)


@pytest.mark.parametrize("L", [4, 10, 16])
def test_ising_draws_what_the_reference_draws(cards, L):
    T, sweeps = 2.2, 40
    results = run(cards, "ising", f"T={T}", f"L={L}", f"sweeps={sweeps}", "--seed", 3)
    key = [int(word) for word in stream(3, 0).integers(2**32, size=2)]
    m, e = heat_bath(key, T, L, sweeps)
    assert results["magnetisation"][0] == pytest.approx(m.mean(), rel=1e-14)
    assert results["energy"][0] == pytest.approx(e.mean(), rel=1e-14)
    assert results["specific_heat"][0] == pytest.approx(L**2 * e.var() / T**2, rel=1e-9)


def test_ising_against_onsager(cards):
    """Onsager, Phys. Rev. 65, 117 (1944), and Yang, Phys. Rev. 85, 808 (1952), far below T_c."""
    results = run(cards, "ising", "T=1.5,1.8", "L=16", "sweeps=250", "--workers", 2)
    for T, m, e in zip(
        *(results[name][()] for name in ("T", "magnetisation", "energy")), strict=True
    ):
        assert m == pytest.approx((1 - np.sinh(2 / T) ** -4) ** (1 / 8), abs=0.015)
        assert e == pytest.approx(onsager(T), abs=0.03)


def onsager(T):
    """Return the energy per site of the infinite lattice, over J."""
    from scipy.special import ellipk

    K = 1 / T
    modulus = 2 * np.sinh(2 * K) / np.cosh(2 * K) ** 2
    factor = 2 * np.tanh(2 * K) ** 2 - 1
    return -(1 + 2 / np.pi * factor * ellipk(modulus**2)) / np.tanh(2 * K)


def test_nbody_agrees_with_the_processor_and_keeps_its_energy(cards):
    cluster = ("nbody", "n=100,200", "steps=16", "dt=0.01")
    assert cards("run", *cluster).code == 0
    on_host = h5py.File(cards.last() / "results.h5")
    on_card = run(cards, *cluster)
    for name in ("energy", "virial_ratio"):
        assert on_card[name][()] == pytest.approx(on_host[name][()], rel=1e-12)
    assert np.all(on_card["energy_error"][()] < 1e-3)
    forces = cards.manifest().gpus[0]["kernels"]["forces"]
    assert forces["flops"] > 0


def test_markov_agrees_with_the_processor(cards):
    chains = ("markov", "n=1,7,30", "chains=3", "squarings=8")
    assert cards("run", *chains).code == 0
    on_host = h5py.File(cards.last() / "results.h5")
    on_card = run(cards, *chains)
    assert on_card["entropy"][()] == pytest.approx(on_host["entropy"][()], rel=1e-12, abs=1e-12)
    assert on_card["total"][()] == pytest.approx(1, rel=1e-12)
    assert np.all(on_card["change"][()] < 1e-12)


SOURCES = sorted((ROOT / "jobs").glob("*.cu"))
# Those that NVIDIA's compiler of today knows; Volta's, 70, went with CUDA 13.
ARCHES = ["sm_75", "sm_80", "sm_86", "sm_89", "sm_90", "sm_100"]


def test_there_are_kernels():
    assert {path.name for path in SOURCES} == {"cavity.cu", "ising.cu", "nbody.cu"}


@pytest.mark.parametrize("arch", ARCHES)
def test_the_kernels_compile_for_each_card_without_spills(cards, arch):
    told = cards("gpu", "compile", *SOURCES, "--arch", arch, "--into", "cubins", "--json")
    assert told.code == 0, told.stderr
    report = json.loads(told.stdout)
    assert {each["source"] for each in report} == {path.name for path in SOURCES}
    for each in report:
        assert each["arch"] == arch
        assert 0 < each["registers"] <= 128, each
        assert each["spill_stores"] == each["spill_loads"] == 0, each
    assert len(list((cards.directory / "cubins").glob(f"*-{arch}-*.cubin"))) == len(SOURCES) + 2
    assert re.fullmatch(r"\d+\.\d+\.\d+", report[0]["toolkit"])
