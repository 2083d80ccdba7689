"""Validate an RO-Crate without a network: python valid_crate.py FOLDER.

The two documents that the validator would fetch are served from here: RO-Crate's context as the
package `rocrate` has it, and of the terms of workflow runs those that hpckit uses.
"""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path

import requests
import rocrate
from requests.adapters import HTTPAdapter
from rocrate_validator.models import Severity
from rocrate_validator.services import ValidationSettings, validate
from urllib3 import HTTPResponse

TERMS = ("ContainerImage", "containerImage", "sha256")
TERM = "https://w3id.org/ro/terms/workflow-run"
KNOWN = {
    "https://w3id.org/ro/crate/1.1/context": (
        Path(rocrate.__file__).parent / "data/ro-crate.jsonld"
    ).read_text(),
    f"{TERM}/context": json.dumps({"@context": {name: f"{TERM}#{name}" for name in TERMS}}),
}


class Served(HTTPAdapter):
    """Answers as the web does."""

    def send(self, request: requests.PreparedRequest, **_: object) -> requests.Response:
        body = KNOWN.get(str(request.url))
        raw = HTTPResponse(
            body=io.BytesIO((body or "").encode()),
            headers={"Content-Type": "application/ld+json"},
            status=404 if body is None else 200,
            preload_content=False,
        )
        return self.build_response(request, raw)


requests.Session.get_adapter = lambda self, url: Served()
result = validate(
    ValidationSettings(
        rocrate_uri=sys.argv[1],
        profile_identifier="process-run-crate",
        requirement_severity=Severity.REQUIRED,
    )
)
for issue in result.get_issues():
    print(issue.severity, issue.check.identifier, issue.message)
sys.exit(int(result.has_issues()))
