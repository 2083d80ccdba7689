"""Where the driver of a run is found."""

from __future__ import annotations

import pytest

from hpckit.store.contact import tell_address, told_address


def test_a_driver_is_found_by_its_own_pilots_alone(tmp_path):
    tell_address(tmp_path, "one", "tls://198.18.0.1:1")
    assert told_address(tmp_path, "one") == "tls://198.18.0.1:1"
    with pytest.raises(OSError, match="address-other"):
        told_address(tmp_path, "other")
