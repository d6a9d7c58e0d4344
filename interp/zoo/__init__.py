"""Mask bugs as tiny living models, each beside its correct twin.

``CASES`` lists them; those met in a public tracker name the report by repository and number, the others are common
forms. The same list is a test suite (every bug must be found, every twin must be green) and the app's zoo.

>>> from headwise import check
>>> case = find("zeros and ones added")
>>> report = check(case.bug(), **case.options)
>>> report.findings[0].cls, report.findings[0].layer
('mask-convention', 1)
>>> check(case.twin(), **case.options).ok
True
"""

from headwise.interp.zoo import cache, conventions, layouts, modes, outside, padding, places, shapes, signals, states
from headwise.interp.zoo.case import Case

CASES: tuple[Case, ...] = (
    *conventions.CASES,
    *shapes.CASES,
    *modes.CASES,
    *padding.CASES,
    *cache.CASES,
    *states.CASES,
    *layouts.CASES,
    *outside.CASES,
    *signals.CASES,
    *places.CASES,
)


def find(name: str) -> Case:
    """The case of that name. Raises KeyError naming those there are."""
    for case in CASES:
        if case.name == name:
            return case
    raise KeyError(f"{name!r} is not in the zoo: {', '.join(c.name for c in CASES)}.")


__all__ = ["CASES", "Case", "find"]
