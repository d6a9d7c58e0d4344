"""What the methods of this page can and cannot tell, and where they come from."""

from __future__ import annotations

from headwise.pages._shared.about import about_card
from headwise.pages._stream.choices import state

ABOUT = {  # a reading, or a way to take apart → what it tells, and the papers (title, address)
    "lens": (
        "The lens asks what the model would say if it stopped here: the last norm and the unembedding, on a state "
        "they were not trained for. Early rows may look like noise and yet hold the answer in other directions.",
        [("nostalgebraist 2020", "https://www.lesswrong.com/posts/AcKRB8wDpdaN6v6ru/interpreting-gpt-the-logit-lens")],
    ),
    "tuned": (
        "The tuned lens first maps a state to where the end would be, by a map learned for each layer. It finds "
        "answers earlier; some of what it finds, the map may have learned from texts, and not the model from this one.",
        [("Belrose et al. 2023", "https://arxiv.org/abs/2303.08112")],
    ),
    "norms": (
        "Lengths and angles say where the stream changes, not what it says. A long state makes later writes count "
        "less, because the last norm divides by it.",
        [],
    ),
    "parts": (
        "Parts are what each head and MLP writes straight onto the answer, with the last norm held still. What a head "
        "does through later parts does not show here: remove it and look, or patch it.",
        [
            ("Elhage et al. 2021", "https://transformer-circuits.pub/2021/framework/index.html"),
            ("Wang et al. 2023", "https://arxiv.org/abs/2211.00593"),
        ],
    ),
    "positions": (
        "A head’s part is split by where it read: weight times what the value there puts onto the answer. What stands "
        "at a position has itself come from elsewhere by then.",
        [("Elhage et al. 2021", "https://transformer-circuits.pub/2021/framework/index.html")],
    ),
}


def about(reading: str) -> None:
    """The card, below what is taken apart; ``reading``: what stands beside it."""
    about_card([ABOUT[reading], ABOUT["positions" if state.parts == "positions" else "parts"]])
