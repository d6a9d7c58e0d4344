"""In a checkout the imports of before mean the same objects, whichever name is imported first."""

import subprocess
import sys

import pytest

from tests.browser.serving import ROOT

OLD = """
from interp import Capture, capture, check, check_mask, edits, masks, sweep
from interp.masks import Causal
from interp.testing import assert_causal
from interp.subject import Axis, InputError, LoadError
from interp.view import head_view, survey, word_groups
from interp.checking.lint import MaskReport
from interp.checking.probes import cache
from interp.figure.colour import sequential
from interp.zoo import CASES
from models import available, load, wrap
from models.fetch import folder_of
from models.decoder import Decoder
import interp.capture, interp.export, interp.tap, models.media, models.recipes.vision
"""
NEW = """
import headwise.testing, headwise.models.architectures.decoder, headwise.models.sources.packages
import headwise.interp.run.capture, headwise.interp.drawing.survey, headwise.interp.check.probes.cache
import headwise.interp.zoo, headwise.interp.drawing.paper.colour, headwise.interp.errors, headwise.interp.attention.axes
"""
SAME = """
import sys
import headwise
from headwise import interp as rooms
from headwise._bridge import MOVED
import interp

assert interp.masks.Causal is rooms.masks.Causal is Causal and masks is headwise.masks
assert interp.capture is capture is headwise.capture is sys.modules["interp.capture"].capture
assert check is headwise.check and check_mask is headwise.check_mask
assert sweep is headwise.sweep and edits is headwise.edits
assert Capture is headwise.Capture and assert_causal is headwise.testing.assert_causal
assert LoadError is rooms.errors.LoadError and Axis is rooms.attention.axes.Axis
assert survey is rooms.drawing.survey.survey and MaskReport is rooms.check.lint.MaskReport
assert cache is rooms.check.probes.cache and CASES is rooms.zoo.CASES
assert sequential is rooms.drawing.paper.colour.sequential and load is headwise.load
assert Decoder is headwise.models.architectures.decoder.Decoder
assert folder_of is headwise.models.sources.packages.folder_of
homes = {name: sys.modules[name].__name__ for name in sys.modules if name.startswith(("interp.", "models."))}
assert all(home.startswith("headwise.") or len(MOVED[old]) > 1 for old, home in homes.items())
assert {v for m in list(sys.modules.values()) for n, v in vars(m).items() if n == "Causal"} == {Causal}
"""


def python(*arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, *arguments], cwd=ROOT, text=True, capture_output=True)


@pytest.mark.parametrize("order", [OLD + NEW, NEW + OLD], ids=["old first", "new first"])
def test_old_and_new_names_are_one_thing(order):
    ran = python("-c", order + SAME)
    assert ran.returncode == 0, ran.stderr


def test_a_name_that_never_was_is_missed_as_usual():
    for line, told in {
        "import interp.nothing": "No module named 'interp.nothing'",
        "from interp import nothing": "cannot import name 'nothing' from 'interp'",
        "from interp.view import nothing": "cannot import name 'nothing' from 'interp.view'",
        "import headwise.headwise": "headwise.headwise is headwise itself",
    }.items():
        assert told in python("-c", line).stderr


def test_the_old_command_is_the_new_one(tmp_path):
    drawn = tmp_path / "head.svg"
    ran = python("-m", "interp", "export", "tiny-decoder", "The people", "--out", str(drawn))
    assert ran.returncode == 0 and drawn.exists(), ran.stderr
    assert python("-m", "interp", "--help").stdout.startswith("usage: headwise")
    assert "headwise --help" in python("-m", "models.fetch").stderr
