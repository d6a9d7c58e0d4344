"""What patching can and cannot tell, and where it comes from."""

from __future__ import annotations

from headwise.pages._shared.about import about_card

ABOUT = (
    (
        "Patching is about one difference between two inputs: what both need alike, such as grammar, does not show. "
        "Denoising shows what suffices to bring the answer back, noising what the answer cannot do without; a part "
        "with a stand-in shows in the first and not in the second. Shares of single parts do not add up to 100 %.",
        [
            ("Vig et al. 2020", "https://arxiv.org/abs/2004.12265"),
            ("Meng et al. 2022", "https://arxiv.org/abs/2202.05262"),
            ("Heimersheim & Nanda 2024", "https://arxiv.org/abs/2404.15255"),
        ],
    ),
    (
        "How the input is corrupted decides what is found. Names exchanged keep the text as likely as it was; noise "
        "and random words put the model where it has never been, and may light up parts that only repair that.",
        [("Zhang & Nanda 2024", "https://arxiv.org/abs/2309.16042")],
    ),
    (
        "Estimates are first order: one gradient instead of a run for each cell. They are right where the way to the "
        "answer is nearly straight, and fail for large changes early on, such as the stream and the MLP of the first "
        "blocks at the changed word. A small estimate does not prove that a part does nothing.",
        [
            ("Nanda 2023", "https://www.neelnanda.io/mechanistic-interpretability/attribution-patching"),
            ("Syed et al. 2023", "https://arxiv.org/abs/2310.10348"),
        ],
    ),
    (
        "A path runs from one head to one receiver, with every other head held still and MLPs free to pass it on; what "
        "goes by way of two other heads is in neither figure.",
        [("Wang et al. 2023", "https://arxiv.org/abs/2211.00593")],
    ),
)


def about() -> None:
    """The card."""
    about_card(ABOUT)
