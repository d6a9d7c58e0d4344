"""Series and chorales: what is parsed, what is held out, what the simple baselines make of them, and the cards."""

import itertools
import re
from fractions import Fraction

import numpy as np
import pytest
import torch

from headwise import capture, load
from headwise.assets import ASSETS
from headwise.interp.analysis.metrics import periodic, sweep
from headwise.models.inputs.scores import START, interleaved, parsed
from headwise.models.recipes import forecaster, music
from headwise.models.recipes.beyond_text import MUSIC21, STATSMODELS, _part, chorale_of, load_chorales, load_months
from headwise.models.sources.bundled import load_bundled


def card(name: str, line: str, number: int = 0) -> list[float]:
    """The numbers of the ``number``-th line of a card that begins so."""
    text = (ASSETS / name / "README.md").read_text("utf-8")
    found = re.findall(rf"^\s*{re.escape(line)}\s+(.*)$", text, flags=re.MULTILINE)
    return [float(each) for each in re.findall(r"\d+\.\d+", found[number])]


@pytest.fixture(scope="module")
def months():
    return load_months()


@pytest.fixture(scope="module")
def chorales():
    return load_chorales()


@pytest.mark.parametrize("source", [STATSMODELS, MUSIC21], ids=lambda source: source.package)
def test_sources_say_their_licence_and_hash(source):
    assert re.fullmatch("[0-9a-f]{64}", source.sha256) and source.about and source.licence


# -- series -----------------------------------------------------------------------------------------------------------
def test_months(months):
    """The first weeks of co2.csv by hand: March 1958 has one figure, April's four are 317.3, 317.6, 317.5, 316.4."""
    carbon, sea = months
    assert (len(carbon.values), len(sea.values)) == (526, 732)  # March 1958 to December 2001; 1950 to 2010
    assert carbon.values[:2] == pytest.approx([316.1, np.mean([317.3, 317.6, 317.5, 316.4])])
    assert carbon.values[3] == pytest.approx((carbon.values[2] + carbon.values[4]) / 2)  # June 1958 was not measured
    assert sea.values[:3] == pytest.approx([23.11, 24.20, 25.37])
    assert carbon.decade(1990).splitlines()[1].startswith("1990-01 ") and len(carbon.decade(1990).splitlines()) == 121
    assert (carbon.known, sea.known) == (382, 480)


def test_nothing_that_is_held_out_is_learned_from(months):
    """Windows of a series that is its own calendar never reach the years held out."""
    for one in months:
        calendar = type(one)(one.name, one.unit, one.first, np.arange(len(one.values), dtype=float))
        drawn = np.random.default_rng(0)
        seen = []
        for _ in range(200):
            start = drawn.integers(calendar.known - forecaster.WINDOW + 1)
            seen.append(calendar.values[start : start + forecaster.WINDOW].max())
        assert max(seen) < calendar.known


@pytest.mark.parametrize(
    ("which", "theta", "seasonal", "error"),
    [(0, -0.39206, -0.84802, 0.46464), (1, 0.11635, -0.99, 0.91482)],
    ids=["carbon", "sea"],
)
def test_arima_is_that_of_statsmodels(months, which, theta, seasonal, error):
    """SARIMAX(order=(0, 1, 1), seasonal_order=(0, 1, 1, 12)) of statsmodels 0.14.5, fitted before 1990 and applied to
    what came before each month; its seasonal term of the second is −0.996, beyond where this one ends."""
    one = months[which]
    model = forecaster.Airline(one.values[: one.known])
    assert (model.ma[1], model.ma[12]) == pytest.approx((theta, seasonal), abs=2e-3)
    assert forecaster.errors_of(one, model, whole=True).mean() == pytest.approx(error, abs=1e-3)


def test_naive_forecasts_by_hand():
    known = np.arange(24.0)[None]  # one more every month
    assert forecaster.seasonal_naive(known)[0].tolist() == list(range(12, 24))
    assert forecaster.with_drift(known)[0].tolist() == list(range(24, 36))


def test_a_bell_is_a_distribution_around_its_token():
    bells = forecaster.bells(torch.tensor([3, 40]), 1.5)
    assert torch.allclose(bells.sum(1), torch.ones(2)) and bells.argmax(1).tolist() == [3, 40]
    assert float(bells[1, 41] / bells[1, 40]) == pytest.approx(np.exp(-0.5 / 1.5**2), rel=1e-5)


def test_the_forecaster_beats_seasonal_naive_on_the_years_held_out(months):
    module, _, _ = load_bundled("tiny-forecaster")
    for number, one in enumerate(months):
        errors = forecaster.errors_of(one, lambda known: forecaster.model_forecast(module, known))
        naive = forecaster.errors_of(one, forecaster.seasonal_naive)
        assert errors.mean() < 0.9 * naive.mean() and errors[:, 0].mean() < 0.5 * naive[:, 0].mean()
        told = card("tiny-forecaster", "tiny-forecaster", number)
        assert told == pytest.approx([errors.mean(), errors[:, 0].mean(), errors[:, -1].mean()], abs=2e-3)


def test_a_head_follows_the_year():
    """In a made-up year, said eight times, only the same month of earlier years foretells a month."""
    season = np.tile(np.random.default_rng(4).normal(size=12) * 1.6 + 20, 8)
    cap = capture(load("tiny-forecaster"), "\n".join(f"{value:.2f}" for value in season))
    table = sweep(cap, periodic(cap))
    best = table.loc[table.next_period.idxmax()]
    assert best.next_period > 0.6 and best.layer == 1  # 1 / 12 by chance
    told = (ASSETS / "tiny-forecaster" / "README.md").read_text("utf-8")
    assert f"layer 1, head {best['head']}: gives" in told


# -- scores -----------------------------------------------------------------------------------------------------------
XML = """<score-partwise><part-list/>{}</score-partwise>"""
PART = """<part id="P"><measure number="0"><attributes><divisions>4</divisions></attributes>
<note><pitch><step>{0}</step><octave>4</octave></pitch><duration>4</duration></note></measure>
<measure number="1">
<note><pitch><step>B</step><alter>-1</alter><octave>3</octave></pitch><duration>3</duration></note>
<note><pitch><step>C</step><octave>4</octave></pitch><duration>1</duration></note>
<note><pitch><step>D</step><octave>4</octave></pitch><duration>4</duration><tie type="start"/></note>
<note><pitch><step>D</step><octave>4</octave></pitch><duration>4</duration><tie type="stop"/></note>
<note><rest/><duration>4</duration></note></measure></part>"""


def test_a_chorale_by_hand():
    """A quarter as upbeat; a dotted eighth, whose sixteenth falls between eighths; a half that is tied; a rest."""
    chorale = chorale_of("bwv1.6", XML.format("".join(PART.format(step) for step in "CDEF")).encode())
    assert chorale.name == "BWV 1.6" and chorale.bars == (0, 2)
    assert chorale.text().splitlines()[1] == "S: C4 . | B♭3 . D4 . . . - -"
    assert chorale.text().splitlines()[4] == "B: F4 . | B♭3 . D4 . . . - -"
    assert (parsed(chorale.text())[0] == chorale.tokens).all()
    assert chorale_of("bwv2", XML.format(PART.format("C")).encode()) is None  # one voice


def test_ties_are_one_note():
    from xml.etree import ElementTree as ET

    notes, bars, end = _part(ET.fromstring(PART.format("C")))
    assert (Fraction(2), Fraction(4), 62) in notes and bars == [0, 1] and end == 5


def test_chorales(chorales):
    training, held_out = chorales
    assert (len(training), len(held_out)) == (342, 22)
    for chorale in (training[0], training[200], held_out[5]):
        assert (parsed(chorale.text())[0] == chorale.tokens).all()

    def melody(chorale):
        begun = [int(t) for t in chorale.tokens[:, 0] if t >= 2 and t % 2 == 0][:12]
        return tuple(b - a for a, b in itertools.pairwise(begun))

    assert not {melody(c) for c in training} & {melody(c) for c in held_out}


def test_transposed_is_higher_and_silence_stays():
    assert music.transposed(np.array([START, 1, 2, 3, 60]), 2).tolist() == [START, 1, 6, 7, 64]


def test_ngrams_by_hand():
    """Witten–Bell, by hand: after 5 came 6 twice and 7 once; 3 tokens of 2 kinds, and so on down to 1 / V."""
    model = music.NGram(2)
    model.add(np.array([5, 6, 5, 6, 5, 7]))
    uniform = 1 / music.VOCABULARY
    unigram = (2 + 3 * uniform) / (5 + 3)  # five tokens after the first, of three kinds; 6 twice
    assert model.losses(np.array([5, 6]))[0] == pytest.approx(-np.log((2 + 2 * unigram) / (3 + 2)))


def test_the_music_model_beats_ngrams(chorales):
    """Against the best n-gram of the card, which takes a minute to learn; a short one is learned here."""
    training, held_out = chorales
    module, _, _ = load_bundled("tiny-music")
    held = music.windows(held_out)
    found, starting = music.losses(module, held), music.begins(held[:, 1:])
    told = card("tiny-music", "tiny-music")
    assert told == pytest.approx([float(found.mean()), float(found[starting].mean())], abs=2e-3)
    grams = [card("tiny-music", f"{order}-grams") for order in music.ORDERS]
    assert told[0] < 0.7 * min(all_ for all_, _ in grams) and told[1] < 0.8 * min(begun for _, begun in grams)
    some = music.baseline(training[:40], held.numpy()[:4], 5)
    assert some.mean() > float(found[:4].mean())


def test_heads_follow_the_bar(chorales):
    found = music.followers(chorales[1][:4])
    assert len(found[2, 1, "next in voice"]) == 4 and min(found[2, 1, "next in voice"]) > 3 / 32
    told = (ASSETS / "tiny-music" / "README.md").read_text("utf-8")
    assert "layer 2, head 1: next in voice, in 22 of them" in told
    assert interleaved(chorales[1][0].tokens)[0] == START
