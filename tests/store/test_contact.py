"""Where the driver of a run is found."""

from __future__ import annotations

import stat

import pytest

from hpckit.errors import StoreError
from hpckit.store.contact import make_contact, tell_address, told_address


def test_a_driver_is_found_by_its_own_pilots_alone(tmp_path):
    tell_address(tmp_path, "one", "tls://198.18.0.1:1")
    assert told_address(tmp_path, "one") == "tls://198.18.0.1:1"
    with pytest.raises(OSError, match="address-other"):
        told_address(tmp_path, "other")


def test_what_cannot_be_written_is_told(tmp_path):
    folder = tmp_path / "contact"
    with pytest.raises(StoreError, match="address-one: cannot be written: No such file"):
        tell_address(folder, "one", "tls://198.18.0.1:1")
    tmp_path.joinpath("file").touch()
    with pytest.raises(StoreError, match="file/contact: cannot be written: Not a directory"):
        make_contact(tmp_path / "file" / "contact")


def test_a_folder_that_cannot_be_removed_is_used_again(tmp_path):
    """It is a link here; on NFS it has files that somebody has open."""
    left, folder = tmp_path / "left", tmp_path / "contact"
    left.mkdir(mode=0o755)
    (left / "address-one").touch(mode=0o644)
    folder.symlink_to(left)
    make_contact(folder)
    tell_address(folder, "one", "tls://198.18.0.1:1")
    assert told_address(folder, "one") == "tls://198.18.0.1:1"
    modes = [stat.S_IMODE(path.stat().st_mode) for path in (folder, folder / "address-one")]
    assert modes == [0o700, 0o600]
