"""Results with flipped bits, or cut off: an answer or one line, and never a traceback."""

from __future__ import annotations

import faulthandler
import os
import random
import signal
import traceback

import numpy as np
import pytest

from hpckit.analyse import tables
from hpckit.analyse.compare_results import compare_results
from hpckit.analyse.documents import document
from hpckit.analyse.variables import are_a_farms, open_variables
from hpckit.errors import StoreError
from hpckit.store import fields
from hpckit.store import manifest as manifests
from hpckit.store.digest import digest
from hpckit.store.results import task_states
from hpckit.store.rundir import RunDir

HANGS_AFTER = 20
DIED = {signal.SIGABRT, signal.SIGSEGV, signal.SIGALRM}
"""How HDF5 itself may end over damage that nothing above it can see."""


def farm(make_farm):
    rows = [
        {"x": i * 0.5, "n": i, "s": f"t{i}", "a": np.arange(3), "r": np.arange(i), "b": i > 1}
        for i in range(5)
    ]
    return make_farm([*rows, "Traceback: boom"], "T=1,2", "repeat=3")


def spmd(make_fields):
    u = np.arange(12.0).reshape(3, 4)
    saved = {"u": (u, ("y", "x")), "x": (u[0], ("x",)), "m": (u[:, 0] > 1, ("y",))}
    return make_fields(saved, {"residual": {0: 1.0, 5: 0.5}})


@pytest.fixture(params=["farm", "copied", "virtual"])
def results(request, make_farm, make_fields, monkeypatch):
    """Return the path of a results.h5."""
    if request.param == "farm":
        return farm(make_farm).results
    if request.param == "virtual":
        monkeypatch.setattr(fields, "COPY_LIMIT", 0)
    return spmd(make_fields).results


def damaged(data: bytes, seed: int) -> bytes:
    draw = random.Random(seed)
    if seed % 5 == 0:
        return data[: draw.randrange(len(data))]
    bits = bytearray(data)
    for _ in range(draw.choice([1, 1, 4])):
        bits[draw.randrange(len(bits))] ^= 1 << draw.randrange(8)
    return bytes(bits)


def show(path):
    with open_variables(path) as variables:
        if are_a_farms(variables):
            list(tables.task_tables(variables, variables["task_state"].rows))
            tables.failure_table(path, variables, 3)
        else:
            tables.field_table(variables)
            tables.record_table(variables)
        return "".join(document({"id": "x"}, variables, None))


def refusals(path, whole) -> int:
    """Use a damaged file in all ways, and count the refusals."""
    told = []
    for use in (digest, show, lambda path: compare_results(whole, path), states):
        try:
            use(path)
        except StoreError as error:
            told.append(str(error))
    assert all(str(path) in line and line.isprintable() for line in told)
    return len(told)


def states(path):
    run = RunDir(path.parent)
    job = manifests.read(run.manifest).job
    return task_states(run, job.tasks) if job.kind == "farm" else None


def in_a_process_of_its_own(work) -> int:
    """Return what `work` returned, or minus the signal that ended it."""
    child = os.fork()
    if child == 0:
        code = 255
        try:
            faulthandler.disable()
            signal.alarm(HANGS_AFTER)
            code = work()
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def test_damage_is_told_in_one_line(results, moments):
    data = results.read_bytes()
    whole = results.with_name("whole.h5")
    whole.write_bytes(data)
    found = []
    for seed in range(4 * moments):
        results.write_bytes(damaged(data, seed))
        found.append(in_a_process_of_its_own(lambda: refusals(results, whole)))
    assert 255 not in found
    died = [-code for code in found if code < 0]
    assert set(died) <= DIED
    assert len(died) < len(found) // 10
    assert sum(code > 0 for code in found) > len(found) // 5
