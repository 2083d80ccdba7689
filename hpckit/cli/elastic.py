"""Workers in batch jobs of their own: what the user may say, and what a driver needs for them."""

from __future__ import annotations

import os
import secrets
import socket
from dataclasses import replace
from typing import TYPE_CHECKING

from hpckit import __version__
from hpckit.errors import UsageError

if TYPE_CHECKING:
    from hpckit.run.engines.pilots import Pilots
    from hpckit.spec.site import Site
    from hpckit.store.create import Run
    from hpckit.store.elastic import Elastic

MOST = 100
"""Workers, where the user does not say."""


def elastic_of(
    site: str | None, least: int | None, most: int | None, slots: int | None
) -> Elastic | None:
    """Return how workers are to come and go, if they are.

    Raises
    ------
    UsageError
        There is no such site; or as `elastic_on`.
    """
    if site is None and least is None and most is None:
        return None
    from hpckit.spec.site import load_site

    return elastic_on(load_site(site), least, most, slots)


def elastic_on(site: Site, least: int | None, most: int | None, slots: int | None) -> Elastic:
    """Return how workers are to come and go on a site.

    Raises
    ------
    UsageError
        There are to be fewer workers at most than at least, or than in each job; or no number
        of jobs with so many workers each is between both.
    """
    from hpckit.store.elastic import Elastic

    least = least or 0
    most = max(MOST, least) if most is None else most
    _require_possible(least, most, slots)
    return Elastic(site=site, least=least, most=most, slots=slots)


def elastic_again(
    before: Elastic, least: int | None, most: int | None, slots: int | None
) -> Elastic:
    """Return how workers are to come and go from now on; what is None stays as it was.

    Raises
    ------
    UsageError
        As `elastic_on`, of both together.
    """
    least = before.least if least is None else least
    most, slots = most or before.most, slots or before.slots
    _require_possible(least, most, slots)
    return before.model_copy(update={"least": least, "most": most, "slots": slots})


def _require_possible(least: int, most: int, slots: int | None) -> None:
    if least > most:
        raise UsageError(f"--min-workers {least} is more than --max-workers {most}")
    if slots is not None and slots > most:
        raise UsageError(
            f"--workers {slots}: each batch job would hold more workers than --max-workers {most}"
        )
    if slots is not None and -(-least // slots) * slots > most:
        raise UsageError(
            f"--workers {slots}: batch jobs with {slots} workers each hold {most // slots * slots} "
            f"or {-(-least // slots) * slots}, neither of which is from --min-workers {least} to "
            f"--max-workers {most}: give a divisor of {most}, or leave it"
        )


def pilots_for(run: Run, elastic: Elastic) -> Pilots:
    """Return what the driver of a run needs to have pilots.

    Raises
    ------
    UsageError
        No partition of the site fits; nodes do not reach this machine; or there is no Slurm.
    LaunchError
        Slurm does not answer.
    """
    from hpckit.render.pilot import pilot_script, plan_pilots
    from hpckit.render.script import render
    from hpckit.run.engines.pilots import Pilots
    from hpckit.submit.handover import container_on
    from hpckit.submit.pilots import SlurmPilots

    site, driver = elastic.site, secrets.token_hex(4)
    plan = plan_pilots(run.dir, run.job, elastic, container_on(run, site))
    plan = replace(plan, driver=driver)
    text = render(pilot_script(plan, site), site, __version__)
    return Pilots(
        SlurmPilots(run.dir, text, run.manifest.sessions, driver),
        run.dir.contact,
        driver,
        address_for_nodes(site),
        plan.slots,
        elastic.least,
        most_workers(elastic, plan.slots, is_submitted=run.manifest.submission is not None),
    )


def most_workers(elastic: Elastic, slots: int, *, is_submitted: bool) -> int:
    """Return how many workers there may be, for what the site lets a user have in the queue.

    Parameters
    ----------
    slots
        Workers in each job.
    is_submitted
        Whether the driver is one of the jobs.
    """
    jobs = elastic.site.max_submit_jobs
    if jobs is None:
        return elastic.most
    # With no room for any, Slurm says so.
    return min(elastic.most, max(jobs - is_submitted, 1) * slots)


def address_for_nodes(site: Site) -> str:
    """Return this machine's address for the nodes of a site.

    Raises
    ------
    UsageError
        It has none on the site's interface, or none that leads to the nodes.
    LaunchError
        Slurm does not answer.
    """
    from hpckit.submit.pilots import addresses_of_nodes

    if site.interface is not None:
        return _address_on(site.interface)
    for node in addresses_of_nodes():
        address = _address_toward(node)
        if address is not None:
            return address
    raise UsageError(
        f"the nodes of {site.name} are on no network of this machine ({os.uname().nodename}): "
        'name the one over which they reach it, interface = "…" in the site'
    )


def _address_on(interface: str) -> str:
    import psutil

    networks = psutil.net_if_addrs()
    for entry in networks.get(interface, []):
        if entry.family == socket.AF_INET:
            return str(entry.address)
    raise UsageError(
        f"interface = {interface!r} of the site is no network of this machine "
        f"({os.uname().nodename}), which has {', '.join(sorted(networks))}"
    )


def _address_toward(node: str) -> str | None:
    """Return the address that packets to a node would come from; None if they have no way."""
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            # A datagram socket sends nothing when it is connected.
            probe.connect((node, 9))
            address = str(probe.getsockname()[0])
    except OSError:
        return None
    return None if address.startswith("127.") else address
