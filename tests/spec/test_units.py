from __future__ import annotations

import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter

from hpckit.units import Memory, Walltime

MB = 1024**2


@pytest.mark.parametrize(
    ("text", "size", "written"),
    [
        ("4G", 4096 * MB, "4G"),
        ("4GB", 4096 * MB, "4G"),
        ("4 GiB", 4096 * MB, "4G"),
        ("500m", 500 * MB, "500M"),
        ("1.5G", 1536 * MB, "1536M"),
        ("2048K", 2 * MB, "2M"),
        ("100", 100 * MB, "100M"),
        ("1T", MB * MB, "1T"),
        ("0", 0, "0"),
    ],
)
def test_memory_reads_and_writes_slurms_forms(text: str, size: int, written: str) -> None:
    memory = Memory(text)
    assert memory == size
    assert str(memory) == f"{memory}" == written
    assert Memory.parse(text) == size


@pytest.mark.parametrize(
    ("text", "seconds", "written"),
    [
        ("90m", 5400, "01:30:00"),
        ("1h30m", 5400, "01:30:00"),
        ("1 hour 30 min", 5400, "01:30:00"),
        ("1.5h", 5400, "01:30:00"),
        ("2d", 172800, "2-00:00:00"),
        ("30s", 30, "00:00:30"),
        ("90", 5400, "01:30:00"),
        ("1:30", 90, "00:01:30"),
        ("26:00:00", 93600, "1-02:00:00"),
        ("1-2", 93600, "1-02:00:00"),
        ("1-2:3", 93780, "1-02:03:00"),
        ("1-02:03:04", 93784, "1-02:03:04"),
    ],
)
def test_walltime_reads_and_writes_slurms_forms(text: str, seconds: int, written: str) -> None:
    walltime = Walltime(text)
    assert walltime == seconds
    assert str(walltime) == written


def test_a_bare_number_is_in_slurms_default_unit_only_where_a_user_wrote_it() -> None:
    assert Memory.parse(500) == 500 * MB
    assert Memory(500) == 500
    assert Walltime.parse(5) == 300
    assert Walltime(5) == 5


@pytest.mark.parametrize(
    "value", ["4 potatoes", "", "-1G", "4P", "1e3", "9" * 18 + "T", None, True, 1.5]
)
def test_memory_says_what_is_allowed(value: object) -> None:
    with pytest.raises(
        ValueError, match=r"an amount of memory, a number and K, M, G or T"
    ) as raised:
        Memory.parse(value)
    assert repr(value) in str(raised.value)


@pytest.mark.parametrize(
    "value", ["soon", "", "0", "5m1h", "1:2:3:4", "-5", "9999999d", None, False]
)
def test_walltime_says_what_is_allowed(value: object) -> None:
    with pytest.raises(ValueError, match=r"a walltime such as '30m'") as raised:
        Walltime.parse(value)
    assert repr(value) in str(raised.value)


@given(st.integers(1, 10**9))
def test_walltime_survives_its_own_form(seconds: int) -> None:
    assert Walltime(str(Walltime(seconds))) == seconds


@given(st.integers(0, 2**50))
def test_memory_survives_its_own_form(kibibytes: int) -> None:
    memory = Memory(kibibytes * 1024)
    assert Memory(str(memory)) == memory


@given(st.text(max_size=20))
def test_any_text_is_a_quantity_or_a_value_error(text: str) -> None:
    for quantity in (Memory, Walltime):
        try:
            value = quantity.parse(text)
        except ValueError as error:
            message = str(error)
        else:
            message = ""
            assert quantity.parse(str(value)) == value
        assert "\n" not in message


def test_a_part_of_a_kilobyte_is_rounded_up() -> None:
    assert str(Memory(1025)) == "2K"
    assert Memory("1.0001K") == 2048


def test_they_are_pydantic_types_that_serialise_as_slurm_writes() -> None:
    adapter = TypeAdapter(dict[str, Memory | Walltime])
    assert (
        adapter.dump_json({"a": Memory("4G"), "b": Walltime("90m")}) == b'{"a":"4G","b":"01:30:00"}'
    )
    assert TypeAdapter(Memory).validate_json('"4G"') == Memory("4G")


def test_they_survive_pickling() -> None:
    copy = pickle.loads(pickle.dumps(Memory("3G")))
    assert repr(copy) == "Memory('3G')"
