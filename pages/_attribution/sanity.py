"""The sanity check: is the map about what the model has learned?"""

from __future__ import annotations

from headwise.interp.analysis.targets import Target
from headwise.interp.drawing import faithful
from headwise.interp.errors import InputError
from headwise.pages._attribution import pictures
from headwise.pages._attribution.found import sanity_of
from headwise.pages._shared.bar import Run
from headwise.pages._shared.words import note


def sanity_check(run: Run, aim: Target, names: tuple[str, str], kind: str) -> None:
    """Draw what is left of each map."""
    checked = []
    for name in dict.fromkeys(names):
        try:
            checked.append(sanity_of(run, aim, name, kind))
        except InputError as error:
            note(str(error))
    checked = [each for each in checked if each]
    if checked:
        names = [each.method for each in checked]
        pictures.curves([faithful.depths(checked)], names, key="attribution-sanity")
        for each in checked:
            note(each.sentence)
