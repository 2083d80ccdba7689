"""A run as an RO-Crate: a folder that says what was run, on what, and what came of it.

It follows the profile Process Run Crate 0.5, https://w3id.org/ro/wfrun/process/0.5.
"""

from __future__ import annotations

import tempfile
from datetime import datetime
from pathlib import Path
from typing import Any

from hpckit.errors import UsageError
from hpckit.store.atomic import explained
from hpckit.store.create import Run
from hpckit.store.digest import digest
from hpckit.store.manifest import Manifest, State

PROFILE = "https://w3id.org/ro/wfrun/process/0.5"
TERMS = "https://w3id.org/ro/terms/workflow-run/context"
SIF = "https://w3id.org/ro/terms/workflow-run#SIFImage"
DONE = "http://schema.org/CompletedActionStatus"
FAILED = "http://schema.org/FailedActionStatus"
HDF5 = "application/x-hdf5"


def write_crate(run: Run, target: Path, license: str | None) -> None:
    """Write a run with its results as a crate.

    Parameters
    ----------
    target
        A folder that is to be made, or a file whose name ends in ``.zip``.
    license
        The URL of the terms under which the results are given away; None reserves all rights.

    Raises
    ------
    UsageError
        There is something already, or the package `rocrate` is not.
    StoreError
        It cannot be written.
    """
    try:
        from rocrate.rocrate import ROCrate
    except ModuleNotFoundError as error:
        raise UsageError(
            f"an RO-Crate needs the package {error.name}: pip install 'hpckit[rocrate]'"
        ) from None

    if target.exists():
        raise UsageError(f"{target}: is there already: give another name with -o")
    crate = ROCrate(version="1.1")
    _describe(crate, run.manifest, license)
    with tempfile.TemporaryDirectory() as folder:
        # The manifest as one shares it: a site's environment may hold what is secret.
        shared = Path(folder) / "run.json"
        shared.write_text(run.manifest.to_public_json() + "\n")
        told = {"name": "The run's manifest", "encodingFormat": "application/json"}
        crate.add_file(shared, "run.json", properties=told)
        inputs, results = _inputs(crate, run), _results(crate, run)
        action = crate.add_action(
            _instrument(crate, run), f"#{run.dir.id}", inputs, results, _action(run.manifest)
        )
        if run.manifest.image is not None:
            action["containerImage"] = _image(crate, run.manifest)
        crate.root_dataset["mentions"] = action
        write = crate.write_zip if target.suffix == ".zip" else crate.write
        with explained(target):
            write(target)


def _describe(crate: Any, manifest: Manifest, license: str | None) -> None:
    from rocrate.model import ContextEntity

    crate.metadata.extra_contexts.append(TERMS)
    profile = {"@type": "CreativeWork", "name": "Process Run Crate", "version": "0.5"}
    crate.root_dataset["conformsTo"] = crate.add(ContextEntity(crate, PROFILE, properties=profile))
    crate.name = f"{manifest.job.name}: {manifest.id}"
    crate.description = f"The results of {manifest.job.name}, run by hpckit as {manifest.id}"
    crate.datePublished = datetime.fromisoformat(manifest.finished or manifest.created)
    if license is not None:
        crate.license = license
        return
    # A crate must say something, and this is what holds where nobody says anything.
    reserved = {"@type": "CreativeWork", "name": "All rights reserved: no licence was named"}
    crate.license = crate.add(ContextEntity(crate, "#no-licence", properties=reserved))


def _action(manifest: Manifest) -> dict[str, Any]:
    completed = manifest.state is State.COMPLETED
    told: dict[str, Any] = {
        "name": f"{manifest.id}: {' '.join(['hpckit', *manifest.argv])}",
        "startTime": manifest.created,
        "endTime": manifest.finished or manifest.created,
        "actionStatus": {"@id": DONE if completed else FAILED},
    }
    if not completed:
        told["error"] = manifest.reason or str(manifest.state)
    return told


def _instrument(crate: Any, run: Run) -> Any:
    """Add the job, and what it was run by."""
    from rocrate.model import SoftwareApplication

    job, environment = run.manifest.job, run.manifest.environment
    versions = {
        "hpckit": environment.get("hpckit"),
        "Python": environment.get("python"),
        "MPI": environment.get("mpi"),
        **environment.get("packages", {}),
    }
    needed = [
        crate.add(
            SoftwareApplication(
                crate, f"#software-{name}", properties={"name": name, "softwareVersion": version}
            )
        )
        for name, version in versions.items()
        if version
    ]
    suffix = Path(job.source).suffix
    language = "Python" if suffix == ".py" else "TOML"
    return crate.add_file(
        run.dir.job(suffix),
        Path(job.source).name,
        properties={
            "@type": ["File", "SoftwareSourceCode"],
            "name": job.name,
            "description": run.job.doc or f"The job {job.name}",
            "programmingLanguage": language,
            "sha256": job.sha256,
            "softwareRequirements": needed,
        },
    )


def _inputs(crate: Any, run: Run) -> list[Any]:
    """Add parameters, the table of tasks, and input files by their hashes."""
    from rocrate.model import ContextEntity

    job = run.manifest.job
    values = {**job.defaults, **job.assignments, "seed": str(job.seed)}
    found = [
        crate.add(
            ContextEntity(
                crate,
                f"#parameter-{name}",
                properties={"@type": "PropertyValue", "name": name, "value": value},
            )
        )
        for name, value in values.items()
    ]
    for number, (path, mark) in enumerate(job.inputs.items()):
        properties = {"@type": "CreativeWork", "name": Path(path).name, **_fingerprint(mark)}
        found.append(crate.add(ContextEntity(crate, f"#input-{number}", properties=properties)))
    if run.dir.table.is_file():
        table = {"name": "tasks.csv", "encodingFormat": "text/csv", "sha256": job.table_sha256}
        found.append(crate.add_file(run.dir.table, "tasks.csv", properties=table))
    return found


def _fingerprint(mark: dict[str, Any]) -> dict[str, str]:
    known = {"sha256": mark.get("sha256"), "contentSize": mark.get("size")}
    return {name: str(value) for name, value in known.items() if value is not None}


def _results(crate: Any, run: Run) -> list[Any]:
    properties = {
        "name": "results.h5",
        "description": "Opens in xarray, netCDF4 and h5dump",
        "encodingFormat": HDF5,
        "contentSize": str(run.dir.results.stat().st_size),
        "identifier": f"hpckit digest {digest(run.dir.results)}",
    }
    found = [crate.add_file(run.dir.results, "results.h5", properties=properties)]
    for path in sorted(run.dir.segments.glob("*.h5")):
        linked = {"name": path.name, "description": "Linked by results.h5", "encodingFormat": HDF5}
        found.append(
            crate.add_file(path, f"{run.dir.segments.name}/{path.name}", properties=linked)
        )
    return found


def _image(crate: Any, manifest: Manifest) -> Any:
    from rocrate.model import ContextEntity

    image = manifest.image
    assert image is not None
    properties = {
        "@type": "ContainerImage",
        "additionalType": {"@id": SIF},
        "name": Path(image.path).name,
        "sha256": image.sha256,
    }
    return crate.add(ContextEntity(crate, "#image", properties=properties))
