"""Right modules of other fields are not flagged; the bug planted in each is found."""

import pytest

from headwise import check
from tests.interp.check.fields import FIELDS


@pytest.mark.parametrize("field", FIELDS, ids=lambda f: f.name)
def test_a_right_module_is_not_flagged(field):
    report = check(field.built(wrong=False), field.expect, **field.options)
    assert report.ok, str(report)


@pytest.mark.parametrize("field", FIELDS, ids=lambda f: f.name)
def test_its_bug_is_found(field):
    report = check(field.built(wrong=True), field.expect, **field.options)
    assert report.findings and not report.errors, str(report)
    assert (report.findings[0].module or "").startswith(field.where), str(report)


def test_there_are_many():
    assert len(FIELDS) >= 25 and len({field.name for field in FIELDS}) == len(FIELDS)
