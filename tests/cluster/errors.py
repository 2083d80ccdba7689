"""What goes wrong with the test cluster, told in one line."""

from __future__ import annotations


class ClusterError(Exception):
    """The cluster cannot do what was asked; the message is for the user."""
