from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpckit.errors import SpecError
from hpckit.spec.params import TYPES, Param


def param(annotation: Any) -> Param:
    return Param.annotated("x", annotation)


@pytest.mark.parametrize(
    ("annotation", "text", "value"),
    [
        (int, " 32 ", 32),
        (int, "-5", -5),
        (float, "2", 2.0),
        (float, "1e-3", 1e-3),
        (bool, "true", True),
        (bool, "No", False),
        (str, " a b", " a b"),
        (complex, "1+2j", 1 + 2j),
        (Literal["a", "b"], "b", "b"),
        (Literal[1, 2], "2", 2),
    ],
)
def test_text_is_read_as_the_type(annotation: Any, text: str, value: object) -> None:
    read = param(annotation).parse(text)
    assert read == value
    assert type(read) is type(value)


@pytest.mark.parametrize(
    ("annotation", "text", "allowed"),
    [
        (int, "2.0", "a whole number of 64 bits, such as 32"),
        (int, "x", "a whole number"),
        (int, str(2**63), "a whole number of 64 bits"),
        (int, "9" * 5000, "a whole number of 64 bits"),
        (float, "two", "a number, such as 2.5 or 1e-3"),
        (float, "__import__('os')", "a number"),
        (bool, "maybe", "true or false"),
        (str, "a\0b", "text, of UTF-8 and without NUL"),
        (str, "\udcff", "text, of UTF-8"),
        (complex, "i", "a complex number, such as 1+2j"),
        (Literal["a", "b"], "c", "one of a or b"),
        (Literal[1, 2], "3", "one of 1 or 2"),
        (Path, "", "a path"),
    ],
)
def test_other_text_is_refused_with_what_is_allowed(
    annotation: Any, text: str, allowed: str
) -> None:
    with pytest.raises(SpecError) as raised:
        param(annotation).parse(text)
    assert raised.value.key == "x"
    assert allowed in str(raised.value)
    assert "\n" not in str(raised.value)
    assert len(str(raised.value)) < 200


@pytest.mark.parametrize(
    ("annotation", "value", "kept"),
    [
        (float, 2, 2.0),
        (complex, 2, 2 + 0j),
        (int, 3, 3),
        (Path, "a/b", Path("a/b")),
        (Literal[1.0, 2.0], 2, 2.0),
    ],
)
def test_a_python_value_is_widened_only_where_nothing_is_lost(
    annotation: Any, value: object, kept: object
) -> None:
    checked = param(annotation).check(value)
    assert checked == kept
    assert isinstance(checked, type(kept))


@pytest.mark.parametrize(
    ("annotation", "value"),
    [
        (int, 2.0),
        (int, True),
        (int, "2"),
        (int, 2**63),
        (float, True),
        (float, "2.0"),
        (float, 10**400),
        (bool, 1),
        (str, 1),
        (str, None),
        (complex, "1j"),
        (Path, 3),
        (Path, ""),
        (Literal["a"], "b"),
    ],
)
def test_a_python_value_of_another_type_is_refused(annotation: Any, value: object) -> None:
    with pytest.raises(SpecError, match=r"^x: .* is not allowed; must be "):
        param(annotation).check(value)


@pytest.mark.parametrize(
    "annotation", [list, list[int], int | None, Any, object, None, Literal[b"a"]]
)
def test_an_unsupported_type_lists_those_that_are(annotation: Any) -> None:
    with pytest.raises(
        SpecError, match=r"^x: the type .* is not supported; allowed are int, float"
    ):
        param(annotation)


def test_choices_are_of_one_type() -> None:
    with pytest.raises(SpecError, match=r"^x: the choices 1 and 'a' are of several types"):
        param(Literal[1, "a"])


@pytest.mark.parametrize("name", ["repeat", "task", "run", "task_state"])
def test_reserved_names_are_refused(name: str) -> None:
    with pytest.raises(SpecError, match=rf"^{name}: the name is reserved"):
        Param.annotated(name, int)


def test_a_path_on_the_command_line_must_exist_and_becomes_absolute(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("melt.lmp").touch()
    Path("link").symlink_to("melt.lmp")
    assert param(Path).parse("melt.lmp") == tmp_path / "melt.lmp"
    assert param(Path).parse("link") == tmp_path / "link"
    assert param(Path).parse(".") == tmp_path
    with pytest.raises(SpecError, match=rf"^x: '{tmp_path}/gone' does not exist; must be the path"):
        param(Path).parse("gone")


def test_a_path_that_the_system_cannot_have_does_not_exist() -> None:
    with pytest.raises(SpecError, match="does not exist"):
        param(Path).parse("x" * 5000)


@given(st.text(max_size=30), st.sampled_from([t for t in TYPES.values() if t is not Path]))
def test_any_text_is_a_value_or_a_spec_error(text: str, kind: type) -> None:
    try:
        value = param(kind).parse(text)
    except SpecError as error:
        message = str(error)
    else:
        message = ""
        checked = param(kind).check(value)
        assert checked == value or checked != checked
    assert "\n" not in message


def test_a_default_makes_it_optional() -> None:
    assert param(int).required
    optional = param(float).with_default(2)
    assert not optional.required
    assert optional.default == 2.0
    with pytest.raises(SpecError, match=r"^x: the default 'a' is not allowed; must be a number"):
        param(float).with_default("a")
