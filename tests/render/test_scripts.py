"""Batch scripts, against golden copies: `pytest tests/render --renew` writes those anew."""

from __future__ import annotations

import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpckit.errors import SpecError
from hpckit.render.batch import Work, batch_script
from hpckit.render.pilot import plan_pilots
from hpckit.render.script import directive_value, render, shell_word
from hpckit.render.submission import Plan, run_script
from hpckit.spec.job import Job
from hpckit.spec.load import load_job
from hpckit.spec.resources import Resources
from hpckit.spec.site import Partition, Site
from hpckit.store.elastic import Elastic
from hpckit.store.rundir import RunDir
from hpckit.units import Memory, Walltime

GOLDEN = Path(__file__).with_name("golden")
SOURCE = Path("/home/ann/jobs")

PLAIN = Site(name="plain")
FULL = Site(
    name="full",
    account="abc123",
    qos="normal",
    mpi="pmix",
    modules=("gcc/13.2", "openmpi/5.0"),
    prologue=("source /etc/profile.d/site.sh",),
    environment={"UCX_TLS": "self,sm,rc", "NOTE": "it's $HOME; `id`"},
    partitions=(
        Partition(name="short", max_walltime=Walltime("5m")),
        Partition(name="main", nodes=4, cpus_per_node=16, mem_per_node=Memory("64G")),
    ),
)
MPIEXEC = Site(name="other", launcher="mpiexec")

SCRIPTS = {
    "cavity-plain": ("cavity", ["n=64"], PLAIN, {}, None),
    "cavity-full": ("cavity", ["n=64"], FULL, {"ntasks": 32, "nodes": 2, "mem": "8G"}, None),
    "cavity-mpiexec": ("cavity", [], MPIEXEC, {"cpus_per_task": 2}, None),
    "ising-plain": ("ising", ["T=linspace(1.5,3.5,21)"], PLAIN, {}, None),
    "ising-full": ("ising", ["T=linspace(1.5,3.5,21)"], FULL, {}, None),
    "ising-workers": ("ising", ["--output", "/scratch/ann's runs/$(id)"], FULL, {}, 3),
}


@pytest.fixture(autouse=True)
def one_environment(monkeypatch):
    monkeypatch.setattr(sys, "executable", "/opt/env/bin/python")


def job(name: str, **resources: object) -> Job:
    found = load_job(name).job
    return found.model_copy(update={"resources": found.resources.updated(**resources)})


SUBMITTED = {
    "submitted-ising": ("ising", PLAIN, {}, {"elements": 5, "workers": 2, "max_running": 3}),
    "submitted-cavity": ("cavity", FULL, {"ntasks": 32, "nodes": 2}, {}),
    "submitted-options": (
        "cavity",
        MPIEXEC,
        {},
        {"options": {"exclusive": "", "constraint": "a b"}, "excluded": ("n[1-2]", "n4")},
    ),
}


def submitted(name: str, site: Site, resources, given) -> str:
    asked = job(name, **resources)
    run = RunDir(Path("/scratch/ann/runs") / f"{name}-20260101-120000-beef")
    plan = Plan(run, asked, 1, asked.resources, tasks=21, **given)
    return render(run_script(plan, site), site, "0.1.0")


def golden_text(name: str) -> str:
    return submitted(*SUBMITTED[name]) if name in SUBMITTED else rendered(*SCRIPTS[name])


def rendered(name: str, arguments, site, resources, workers) -> str:
    work = Work(job(name, **resources), SOURCE / f"{name}.py", arguments, tasks=21)
    return render(batch_script(work, site, workers), site, "0.1.0")


@pytest.mark.parametrize("name", [*SCRIPTS, *SUBMITTED])
def test_scripts_are_as_they_were(name, request):
    text = golden_text(name)
    golden = GOLDEN / f"{name}.sh"
    if request.config.getoption("--renew"):
        golden.write_text(text)
    assert text == golden.read_text(), "renew it with: pytest tests/render --renew"


@pytest.mark.skipif(
    shutil.which("shellcheck") is None, reason="needs shellcheck: Debian's package shellcheck"
)
@pytest.mark.parametrize("name", [*SCRIPTS, *SUBMITTED])
def test_scripts_are_clean_to_shellcheck(name, tmp_path):
    script = tmp_path / "job.sh"
    script.write_text(golden_text(name))
    # What a site's own prologue sources is not there to be followed.
    argv = ["shellcheck", "--exclude=SC1091", str(script)]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


@given(st.text(st.characters(exclude_characters="\0", codec="utf-8")))
def test_a_value_is_one_word_to_the_shell(text):
    done = subprocess.run(
        ["bash", "-c", f"printf %s {shell_word(text)}"], capture_output=True, check=True
    )
    assert done.stdout.decode() == text


@given(st.text())
def test_a_directive_stays_on_its_line(text):
    try:
        value = directive_value(text)
    except SpecError:
        assert not text.isprintable()
    else:
        assert value.isprintable()


def test_a_site_may_override_a_block(tmp_path):
    (tmp_path / "spmd.sh").write_text(
        '{% extends "hpckit/spmd.sh" %}\n'
        "{% block options %}\nset -eu\nulimit -s unlimited\n{% endblock %}\n"
    )
    site = Site(name="own", templates=tmp_path)
    text = rendered("cavity", [], site, {}, None)
    assert "\nulimit -s unlimited\n" in text
    assert "pipefail" not in text
    assert "srun --cpus-per-task=1" in text


def test_a_template_that_names_what_is_not_there(tmp_path):
    (tmp_path / "spmd.sh").write_text("{{ nothing }}\n")
    with pytest.raises(SpecError, match=r"spmd.sh does not render: .*'nothing' is undefined"):
        rendered("cavity", [], Site(name="own", templates=tmp_path), {}, None)


@pytest.mark.parametrize(
    ("asked", "limit"),
    [
        ({"walltime": "2h"}, "a: walltime=02:00:00 is above its 01:00:00"),
        ({"cpus_per_task": 9}, "a: 9 CPUs on a node are more than its 8"),
        ({"ntasks": 33}, "a: 5 nodes are more than its 4"),
        ({"ntasks": 5, "nodes": 5}, "a: 5 nodes are more than its 4"),
        ({"ntasks": 5, "ntasks_per_node": 1}, "a: 5 nodes are more than its 4"),
        ({"ntasks": 9, "mem_per_cpu": "1G"}, "a: 5 nodes are more than its 4"),
        ({"ntasks": 4, "nodes": 1, "mem_per_cpu": "1G"}, "a: 4G of memory on a node are more"),
        ({"gpus_per_task": 1}, "a: 1 GPUs on a node are more than its 0"),
        ({"mem": "3G"}, "a: 3G of memory on a node are more than its 2G"),
    ],
)
def test_no_partition_fits(asked, limit):
    small = Partition(
        name="a",
        max_walltime=Walltime("1h"),
        nodes=4,
        cpus_per_node=8,
        mem_per_node=Memory("2G"),
    )
    site = Site(name="s", partitions=(small,))
    with pytest.raises(SpecError) as refused:
        site.partition_for(Resources.from_options(asked))
    assert str(refused.value).startswith(f"no partition of s fits: {limit}")
    assert site.partition_for(Resources.from_options({"ntasks": 32, "mem": "2G"})) is small


@pytest.mark.parametrize("value", ["a\n\n\n\nb", " $(id) `id` \\ \" ' ; # é\t", "", "-n", "*"])
def test_values_arrive_unchanged_through_a_script(value, tmp_path):
    site = Site(name="own", launcher="none", environment={"VALUE": value})
    work = Work(job("cavity", ntasks=1), SOURCE / "cavity.py", [value], tasks=1)
    script = batch_script(work, site)
    words = ["printf", r"%s\0", "$VALUE", *script.launch[3:], value]
    text = render(replace(script, launch=words), site, "0.1.0").replace('"\\$VALUE"', '"$VALUE"')
    done = subprocess.run(["bash", "-c", text], capture_output=True, check=True, cwd=tmp_path)
    assert done.stdout.decode().split("\0")[:-1] == [
        value, "exec", str(SOURCE / "cavity.py"), value, value
    ]  # fmt: skip


def test_ranks_without_a_launcher_are_refused():
    with pytest.raises(SpecError, match="4 ranks, and the site own has no launcher"):
        rendered("cavity", [], Site(name="own", launcher="none"), {}, None)


def test_a_farm_fills_a_node_only_as_far_as_all_its_limits_go():
    node = Partition(
        name="gpu", cpus_per_node=64, gpus_per_node=4, mem_per_node=Memory("64G"), nodes=2
    )
    site = Site(name="own", partitions=(node,))
    for asked, workers in (
        ({"gpus_per_task": 1}, 4),
        ({"mem": "10G"}, 6),
        ({"mem": None, "mem_per_cpu": "8G"}, 8),
        ({"mem": None, "cpus_per_task": 4}, 16),
    ):
        work = Work(job("ising", **asked), SOURCE / "ising.py", [], tasks=100)
        assert batch_script(work, site).workers == workers


@pytest.mark.parametrize(
    ("most", "slots"), [(100, 4), (8, 4), (6, 3), (5, 1), (2, 2), (1, 1), (9, 3)]
)
def test_pilots_can_hold_as_many_workers_as_there_may_be(most, slots):
    elastic = Elastic(site=FULL, least=0, most=most)
    assert plan_pilots(RunDir(Path("run")), job("ising"), elastic, None).slots == slots
