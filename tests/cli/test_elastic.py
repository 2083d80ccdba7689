"""What the user may say of workers that come and go."""

from __future__ import annotations

import pytest

from hpckit.cli.elastic import most_workers
from hpckit.cli.means import Means
from hpckit.errors import UsageError
from hpckit.spec.resources import Resources
from hpckit.spec.site import Site
from hpckit.store.elastic import Elastic

BEFORE = Elastic(
    site=Site(name="here"), least=2, most=8, slots=4, resources=Resources(), partition="spare"
)


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ({"max_workers": 2}, "--workers 4: each batch job would hold more workers than --max-work"),
        ({"workers": 16}, "--workers 16: each batch job would hold more workers than --max-worker"),
        ({"min_workers": 200}, "--min-workers 200 is more than --max-workers 8"),
        ({"min_workers": 5, "max_workers": 6}, "hold 4 or 8, neither of which is from --min-work"),
        ({"max_workers": 1, "workers": 1}, "--min-workers 2 is more than --max-workers 1"),
    ],
)
def test_what_does_not_go_with_what_was_before_is_refused(asked, told):
    with pytest.raises(UsageError, match=told):
        Means(**asked).elastic(BEFORE)


def test_what_the_user_does_not_say_stays_as_it_was():
    asked = Means(min_workers=0, max_workers=12).elastic(BEFORE)
    assert asked == BEFORE.model_copy(update={"least": 0, "most": 12})
    assert Means().elastic(BEFORE) == BEFORE


@pytest.mark.parametrize(
    ("jobs", "is_submitted", "most"),
    [(None, True, 8), (50, True, 8), (2, False, 8), (2, True, 4), (1, True, 4)],
)
def test_pilots_and_their_driver_are_no_more_jobs_than_the_site_takes(jobs, is_submitted, most):
    limited = BEFORE.model_copy(update={"site": Site(name="here", max_submit_jobs=jobs)})
    assert most_workers(limited, 4, is_submitted=is_submitted) == most
