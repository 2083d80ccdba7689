"""What a cluster says of itself; the real one is asked in tests/cluster."""

from __future__ import annotations

import pytest

from hpckit.errors import LaunchError
from hpckit.render.site import site_toml
from hpckit.spec.site import Site
from hpckit.submit.survey import node_line, partitions
from hpckit.units import Memory, Walltime

LINES = """\
short|10:00|n1|4|1000|(null)
main*|1-00:00:00|n1|4|1000|(null)
main*|1-00:00:00|n2|16|64000|gpu:a100:4(S:0-1),gpu:v100:2,shard:8
endless|infinite|n2|16|64000|gpu:2
"""


def surveyed():
    return partitions(map(node_line, LINES.splitlines()))


def test_partitions_have_the_largest_nodes_limits_and_the_default_is_first():
    main, short, endless = surveyed()
    assert [p.name for p in (main, short, endless)] == ["main", "short", "endless"]
    assert (main.nodes, main.cpus_per_node, main.gpus_per_node) == (2, 16, 6)
    assert main.max_walltime == Walltime("1-00:00:00")
    assert main.mem_per_node == Memory("64000M")
    assert (short.max_walltime, short.gpus_per_node) == (Walltime("10m"), 0)
    assert (endless.max_walltime, endless.gpus_per_node) == (None, 2)


def test_a_site_reads_back_from_its_file(tmp_path):
    site = Site(name="hawk", mpi="pmix", partitions=tuple(surveyed()))
    path = tmp_path / "hawk.toml"
    assert Site.from_text(site_toml(site), path) == site


@pytest.mark.parametrize("line", ["main|1:00|n1|4|1000", "main|1:00|n1|four|1000|(null)", ""])
def test_a_line_that_is_not_understood(line):
    with pytest.raises(LaunchError, match="which is not understood"):
        node_line(line)


def test_no_slurm_here(hpckit):
    ended = hpckit("site", "init", env={"PATH": str(hpckit.directory)})
    assert ended.code == 2
    assert ended.stderr.startswith("hpckit: sinfo: no such program on the PATH")
    assert len(ended.stderr.splitlines()) == 1


@pytest.mark.parametrize("name", ["a b", "../a", "", "a/b"])
def test_a_name_that_is_none(hpckit, name):
    ended = hpckit("site", "init", name)
    assert ended.code == 2
    assert ended.stderr.startswith(f"hpckit: {name!r} cannot be a site's name")


def test_a_group_without_a_command_prints_its_help(hpckit):
    ended = hpckit("site")
    assert ended.code == 2
    assert ended.stderr.startswith("Usage: hpckit site ")
