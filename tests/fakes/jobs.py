"""Jobs and their elements: an array's, or the one of a job that is none."""

from __future__ import annotations

import json
import time
from typing import Any

from fakes.folder import Folder, write
from fakes.words import UNFINISHED

Data = dict[str, Any]


class Job:
    """What was submitted at once; `data` is what its file holds."""

    def __init__(self, data: Data) -> None:
        self.data = data
        self.is_changed = False
        self.elements = [Element(self, key, its) for key, its in data["elements"].items()]

    @classmethod
    def read(cls, folder: Folder, number: int) -> Job:
        """Read a job's file."""
        return cls(json.loads((folder.jobs / f"{number}.json").read_text()))

    def save(self, folder: Folder) -> None:
        """Write it, if anything has changed."""
        if self.is_changed:
            write(folder.jobs / f"{self.id}.json", json.dumps(self.data))
            self.is_changed = False

    @property
    def id(self) -> int:
        """The number that sbatch printed."""
        return self.data["id"]

    @property
    def is_array(self) -> bool:
        """Whether it was submitted as an array."""
        return self.data["is_array"]

    def element(self, key: str) -> Element:
        """Return one of its elements."""
        return next(element for element in self.elements if element.key == key)

    def unsplit(self) -> list[Element]:
        """Return the elements that nothing has happened to alone: one record in Slurm."""
        return [e for e in self.elements if self.is_array and "id" not in e.data and e.is_visible]

    def may_come_back(self) -> bool:
        """Tell whether it may go back to the queue."""
        return self.data["options"].get("requeue") != "0"


class Element:
    """One batch script that runs, ran or is to run; `data` is what the job's file holds of it."""

    def __init__(self, job: Job, key: str, data: Data) -> None:
        self.job, self.key, self.data = job, key, data

    def __getitem__(self, name: str) -> Any:
        return self.data.get(name)

    def set(self, **values: Any) -> None:
        """Change it."""
        self.data.update(values)
        self.job.is_changed = True

    @property
    def id(self) -> int:
        """Its own number, $SLURM_JOB_ID."""
        return self.data.get("id", self.job.id)

    @property
    def label(self) -> str:
        """Its name: `12` or `12_3`."""
        return f"{self.job.id}_{self.key}" if self.job.is_array else str(self.job.id)

    @property
    def state(self) -> str:
        """Its state in one word, in accounting; see `in_queue`."""
        return self.data["state"]

    @property
    def in_queue(self) -> str:
        """Its state as the queue has it."""
        return "COMPLETING" if self["completing"] else self.state

    @property
    def has_ended(self) -> bool:
        """Whether nothing of it runs or is to run."""
        return self.state not in UNFINISHED and not self["completing"]

    @property
    def occupies(self) -> bool:
        """Whether it takes a CPU."""
        return self.state == "RUNNING" or bool(self["completing"])

    @property
    def is_visible(self) -> bool:
        """Whether it has not vanished."""
        return not self["vanished"]

    def split(self, folder: Folder) -> None:
        """Make it a record of its own; the last of an array keeps the array's number."""
        if self.job.is_array and "id" not in self.data:
            others = len(self.job.unsplit()) > 1
            self.set(id=folder.next_ids() if others else self.job.id)

    def end(self, state: str, *, why: str = "", by: int | None = None, grace: bool = True) -> None:
        """Have it end in a state; its supervisor, if there is one, sees to it."""
        runs = self.state == "RUNNING"
        self.set(state=state, end=int(time.time()), by=by)
        if runs:
            self.set(completing=True, why=why, grace=grace)

    def has_stopped(self, exits: Data) -> None:
        """Note that nothing of it runs any more, and how its script ended."""
        if self.state == "RUNNING":
            failed = exits["code"] or exits["signal"]
            self.set(state="FAILED" if failed else "COMPLETED", end=int(time.time()))
        self.set(completing=False, batch={**exits, "end": int(time.time())})

    def come_back(self) -> None:
        """Put it back into the queue; what was is remembered."""
        past = self.data.pop("past", [])
        kept = {name: self.data[name] for name in ("id", "held") if name in self.data}
        past.append({**self.data, "past": []})
        self.data.clear()
        restarts = len(past)
        self.set(state="PENDING", submit=int(time.time()), restarts=restarts, past=past, **kept)
