"""The key of a farm on pilots, and the folder that it lies in."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

pytest.importorskip("distributed")

from cryptography import x509

from hpckit.run.engines.certificates import CERTIFICATE, make_certificates


def test_a_node_whose_clock_is_behind_takes_the_certificate(tmp_path):
    make_certificates(tmp_path / "contact")
    made = x509.load_pem_x509_certificate((tmp_path / "contact" / CERTIFICATE).read_bytes())
    assert made.not_valid_before_utc < datetime.now(UTC) - timedelta(hours=1)
    assert made.not_valid_after_utc > datetime.now(UTC) + timedelta(days=300)
