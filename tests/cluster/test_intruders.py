"""What another user of the cluster can do with a farm whose workers are batch jobs: nothing."""

from __future__ import annotations

import json
import os
import pickle
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from cluster.hpckit_there import There
from redis_server import MISSING, RedisServer, make_certificate

distributed = pytest.importorskip("distributed")

NAP = """
    import time
    from hpckit import farm

    @farm(mem="150M", walltime="10m")
    def nap(i: int = 0):
        time.sleep(0.2)
        return {"y": 2 * i}
"""


@pytest.fixture
def there(slurm):
    """hpckit on the cluster, which other tests use too."""
    return There(slurm)


def listening(pid: int) -> list[tuple[str, int]]:
    """Return where a process listens, in its own network: IPv4 addresses and ports."""
    inodes = set()
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        target = str(descriptor.readlink())
        if target.startswith("socket:["):
            inodes.add(target[8:-1])
    assert not _rows(pid, "tcp6", inodes)
    places = []
    for local in _rows(pid, "tcp", inodes):
        address, port = local.split(":")
        octets = bytes.fromhex(address)[::-1]
        places.append((".".join(map(str, octets)), int(port, 16)))
    return places


def _rows(pid: int, table: str, inodes: set[str]) -> list[str]:
    lines = Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]
    rows = [line.split() for line in lines]
    return [row[1] for row in rows if row[3] == "0A" and row[9] in inodes]


NOBODY = 65534


class Mischief:
    """What runs wherever it is unpickled."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self):
        return os.system, (f"touch {self.trace}",)


def tries(folder: Path, user: int, **orders: object) -> dict[str, str]:
    """Return what a user gets."""
    script = Path(__file__).with_name("intruder.py").read_text()
    payload = pickle.dumps(Mischief(folder / "trace")).hex()
    nothing: dict[str, object] = {"places": [], "files": [], "folders": [], "certificate": None}
    done = subprocess.run(
        [sys.executable, "-c", script],
        input=json.dumps({**nothing, "user": user, "pickle": payload, **orders}),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def tried(there, run: Path, places, pids, *, user: int, certificate: str) -> dict[str, str]:
    """Return what a user gets who has a key and its certificate."""
    mine = there.folder.parent / f"user-{user}"
    mine.mkdir()
    (mine / "own.pem").write_text(certificate)
    (mine / "own.pem").chmod(0o644)
    _, _, socket = (run / "contact" / "dashboard").read_text().partition(":")
    files = [run / "run.json", run / "job.py", *(run / "contact").iterdir()]
    for folder in (mine, *mine.parents):
        # The doors of pytest's own folders are not what is tried here.
        folder.chmod(folder.stat().st_mode | 0o055)
    return tries(
        there.folder,
        user,
        places=places,
        certificate=str(mine / "own.pem"),
        files=[*map(str, files), *(f"/proc/{pid}/environ" for pid in pids)],
        folders=[str(run), str(run / "contact"), str(Path(socket).parent)],
        dashboard=socket,
    )


def granted(found: dict[str, str]) -> set[str]:
    """Return what was not refused."""
    return {what for what, how in found.items() if not how.startswith(("refused", "closed"))}


def workers_of(run: Path) -> list[int]:
    """Return the processes of the pilots of a run, which are on this machine too."""
    words = ("hpckit", "pilot", str(run))
    pilots = [
        p for p in psutil.process_iter(["cmdline"]) if set(words) <= set(p.info["cmdline"] or ())
    ]
    return [p.pid for pilot in pilots for p in (pilot, *pilot.children(recursive=True))]


def test_another_user_gets_nothing(there):
    there.job(NAP)
    on_pilots = ("--engine", "dask", "--site", "here.toml", "--max-workers", 2)
    driver = there.start("run", "job.py", "i=range(1,3001)", *on_pilots)
    there.slurm.wait_for(lambda: list(there.folder.glob("runs/*/run.json")))
    (run,) = there.folder.glob("runs/*")
    there.slurm.wait_for(lambda: there.state(run)["done"], 90)
    assert "dashboard  ssh -N -L 8787:" in there("status", run)
    pids = [driver.pid, *workers_of(run)]
    by_pid = {pid: listening(pid) for pid in pids}
    places = sorted({place for found in by_pid.values() for place in found})
    # The scheduler; each nanny and its worker.
    assert len(places) >= 3
    assert not [place for place in places if place[0] in ("0.0.0.0", "127.0.0.1")]
    contact = run / "contact"
    other = distributed.Security.temporary()
    key = other.tls_client_key + other.tls_client_cert
    found = tried(there, run, places, pids, user=NOBODY, certificate=key)
    assert granted(found) == set()
    assert not (there.folder / "trace").exists()
    # The same, tried by the owner with the run's own key, gets all but what is not encrypted.
    key = (contact / "key.pem").read_text() + (contact / "certificate.pem").read_text()
    owned = tried(there, run, places, pids, user=0, certificate=key)
    assert {what for what in found if what.endswith(("plainly", "tls"))} == owned.keys() - granted(
        owned
    )
    driver.send_signal(signal.SIGINT)
    driver.communicate(timeout=60)
    assert not (run / "contact").exists()


@pytest.mark.skipif(MISSING, reason="needs redis-server: apt-get install redis-server")
@pytest.mark.parametrize("tls", [False, True])
def test_another_user_does_not_get_into_redis(tmp_path, tls):
    server = RedisServer(tmp_path, make_certificate(tmp_path, "127.0.0.1") if tls else None)
    server.start()
    try:
        found = tries(tmp_path, NOBODY, brokers=[("127.0.0.1", server.port)])
        assert len(found) == 1
        assert granted(found) == set()
        with server.client() as client:
            assert client.llen("q") == 0
            client.lpush("q", "by who has the password")
            assert client.llen("q") == 1
    finally:
        server.kill()
