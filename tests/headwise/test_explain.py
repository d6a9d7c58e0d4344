"""``headwise explain``: its sentences, its one file, and what it says of what it cannot explain."""

import base64
import re

import pytest

from headwise import ablate, capture, load, logit_attribution
from headwise.__main__ import main
from headwise.interp.analysis.targets import target

TEXT = "The people of the United States and the people of the"
OTHER = "The people of the American States and the people of the"


@pytest.fixture(scope="module")
def told(tmp_path_factory):
    """The story of one answer: what stands on the terminal, and the file."""
    place = tmp_path_factory.mktemp("story") / "story.html"
    with pytest.MonkeyPatch.context() as patch:
        lines: list[str] = []
        patch.setattr("builtins.print", lambda *words, **how: lines.append(" ".join(map(str, words))))
        options = ["--target", "United", "--against", "American", "--corrupted", OTHER, "--html", str(place)]
        assert main(["explain", "tiny-decoder", TEXT, *options]) == 0
    return "\n".join(lines), place.read_text("utf-8")


def test_its_numbers_are_those_of_the_library(told):
    lines, _ = told
    cap = capture(load("tiny-decoder"), TEXT)
    aim = target(cap, "United", "American")
    effects = ablate(cap, "heads", "mean", aim)
    most = effects.loc[effects["effect"].abs().idxmax()]
    assert f"most at {most.layer:.0f}.{most['head']:.0f} ({most.effect:+.2f})".replace("-", "−") in lines
    total = logit_attribution(cap, aim).attrs["total"]
    assert f"All together: {total:+.2f}.".replace("-", "−") in lines


def test_the_file_is_whole_and_asks_for_nothing(told):
    lines, page = told
    titles = [line.partition(":")[0] for line in lines.splitlines()[:-1]]
    assert re.findall(r"<h2 id='[^']*'>([^<]*)</h2>", page) == titles
    assert not re.findall(r"""(?:src|srcset|href)=['"](?!data:|#|https://)""", page)
    assert "<script" not in page and "default-src 'none'" in page
    figures = re.findall(r"src='data:image/svg\+xml;base64,([^']*)'", page)
    assert len(figures) >= 6
    assert all(base64.b64decode(figure).lstrip().startswith((b"<svg", b"<?xml")) for figure in figures)


def test_text_is_escaped(tmp_path, capsys):
    place = tmp_path / "story.html"
    assert main(["explain", "tiny-attention-only", "a <img src=x onerror=alert(1)> b", "--html", str(place)]) == 0
    page = place.read_text("utf-8")
    assert "<img src=x" not in page and "&lt;img src=x onerror=alert(1)&gt;" in page


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["tiny-decoder", "Hello there", "--target", "the", "--against", "the"], "are the same"),
        (["tiny-decoder", ""], "empty"),
        (["tiny-decoder"], "exactly one of TEXT, --image and --audio"),
        (["tiny-vit", "a text"], "looks at pictures: give it --image, not TEXT"),
        (["tiny-decoder", "Hello there", "--html", "nowhere/at/all.html"], "does not exist; make it first"),
        (["no-such-model", "Hello there"], "no-such-model"),
    ],
)
def test_what_cannot_be_explained_is_one_sentence(arguments, says, capsys):
    assert main(["explain", *arguments]) == 2
    error = capsys.readouterr().err.strip()
    assert says in error and error.startswith("error: ") and len(error.splitlines()) == 1


def test_a_model_without_an_answer_says_so_and_a_chapter_that_does_not_apply_does(capsys):
    """A masked model answers at its mask; without a corrupted text none of its states can be patched."""
    assert main(["explain", "tiny-encoder", "the people of the [MASK] states"]) == 0
    lines = capsys.readouterr().out
    assert "What heads do: Removing heads moves the answer most at" in lines
    assert "Which states carry it: " in lines
