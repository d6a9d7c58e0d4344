"""Small right modules of other fields, each with one bug that can be planted in it."""

from tests.interp.check.fields import audio, recurrences, series, transformers, vision
from tests.interp.check.fields.field import Field

FIELDS: tuple[Field, ...] = (
    *audio.FIELDS,
    *recurrences.FIELDS,
    *series.FIELDS,
    *transformers.FIELDS,
    *vision.FIELDS,
)
