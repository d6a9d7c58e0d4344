"""What circuits can and cannot tell, and where they come from."""

from __future__ import annotations

from headwise.pages._shared.about import about_card

ABOUT = (
    (
        "The graph is about one answer and one difference between two inputs: what both need alike does not show. It "
        "is one small graph that is enough, not the only one: other edges may do the same work, and parts that speak "
        "against the answer are left out. Its restored share comes from a run in which every other edge carries what "
        "it carries in the other input.",
        [
            ("Wang et al. 2023", "https://arxiv.org/abs/2211.00593"),
            ("Conmy et al. 2023", "https://arxiv.org/abs/2304.14997"),
            ("Syed et al. 2023", "https://arxiv.org/abs/2310.10348"),
            ("Hanna et al. 2024", "https://arxiv.org/abs/2403.17806"),
        ],
    ),
    (
        "An edge’s figure is what the graph loses without that edge, not what the model would. Edges are proposed by "
        "gradients and then run; one that no gradient shows is not found.",
        [("Goldowsky-Dill et al. 2023", "https://arxiv.org/abs/2304.05969")],
    ),
    (
        "What a head looks for and writes by its weights leaves out positions and what parts between do. Compositions "
        "say that two heads could work together, not that they do on this input; small differences between scores mean "
        "little.",
        [("Elhage et al. 2021", "https://transformer-circuits.pub/2021/framework/index.html")],
    ),
)


def about() -> None:
    """The card."""
    about_card(ABOUT)
