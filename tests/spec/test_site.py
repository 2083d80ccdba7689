"""Sites: their files, their names, and what is wrong with them."""

from __future__ import annotations

import pytest

from hpckit.errors import SpecError, UsageError
from hpckit.spec.resources import Resources
from hpckit.spec.site import load_site

TEXT = """
launcher = "mpiexec"
modules = ["gcc/13.2"]

[environment]
UCX_TLS = "self,sm"

[[partitions]]
name = "short"
max_walltime = "10m"

[[partitions]]
name = "long"
mem_per_node = "4G"
"""


@pytest.fixture
def sites(tmp_path, monkeypatch):
    """The folder of a user's sites."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.delenv("HPCKIT_SITE", raising=False)
    folder = tmp_path / "hpckit" / "sites"
    folder.mkdir(parents=True)
    return folder


def test_a_site_is_found_by_name_file_and_variable(sites, monkeypatch):
    (sites / "hawk.toml").write_text(TEXT)
    assert load_site("hawk").name == "hawk"
    assert load_site(str(sites / "hawk.toml")) == load_site("hawk")
    monkeypatch.setenv("HPCKIT_SITE", "hawk")
    assert load_site(None) == load_site("hawk")
    assert load_site("hawk").environment == {"UCX_TLS": "self,sm"}


def test_without_a_name_the_default_counts(sites):
    assert load_site(None).name == "plain"
    (sites / "default.toml").write_text('name = "hawk"')
    assert load_site(None).name == "hawk"


def test_a_name_that_is_not_there(sites):
    (sites / "hawk.toml").write_text(TEXT)
    with pytest.raises(UsageError, match=r"--site hawl: there is no .*hawl.toml; sites are hawk"):
        load_site("hawl")


def test_the_first_partition_that_fits(sites):
    (sites / "hawk.toml").write_text(TEXT)
    site = load_site("hawk")
    for asked, name in (({"walltime": "5m"}, "short"), ({"walltime": "1h"}, "long")):
        partition = site.partition_for(Resources.from_options(asked))
        assert partition is not None
        assert partition.name == name


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("launcher = 3", "launcher: 3 "),
        ('launcher = "mpirun"', "launcher: 'mpirun' "),
        ('acount = "x"', "acount: unknown key; a site has name, "),
        ("[[partitions]]\nname = 'a'\nnode = 3", "node: unknown key; "),
        ("[[partitions]]\nnodes = 3", "name: is missing"),
        ("[[partitions]]\nname = 'a'\nmem_per_node = '4 potatoes'", "an amount of memory"),
        ('account = "a b"', "account: 'a b' is not one word of letters, digits and "),
        ('prologue = "abc"', "prologue: 'abc' is not a list"),
        ('account = "a\\n#SBATCH --uid=0"', "account: "),
        ('modules = ["gcc; rm"]', "modules.0: 'gcc; rm' "),
        ('prologue = ["a\\nb"]', "prologue: "),
        ('[environment]\n"A B" = "x"', "'A B' cannot be the name of a variable"),
        ('templates = "nowhere"', "templates: "),
        ("launcher = ", "site.toml:1: is not TOML"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(tmp_path, text, problem):
    path = tmp_path / "site.toml"
    path.write_text(text)
    with pytest.raises(SpecError) as refused:
        load_site(str(path))
    assert str(path) in str(refused.value)
    assert problem in str(refused.value)
    assert len(str(refused.value).splitlines()) == 1
