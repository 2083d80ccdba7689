"""The cluster's own tests use it as all others do."""

from cluster.fixtures import *  # noqa: F403
