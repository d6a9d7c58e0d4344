"""Models that learned the same from the same text, each with another attention: how far back does each remember?"""

from __future__ import annotations

import html
import json
from functools import cache

import pandas as pd
import streamlit as st

from headwise.assets import ASSETS
from headwise.models import available
from headwise.pages._shared.about import about_card
from headwise.pages._shared.files import csv, file_buttons
from headwise.pages._shared.words import heading, note

FULL = "Full attention"
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#D55E00", "#56B4E9", "#8C949C", "#B8A100")  # Okabe & Ito 2008
DASHES = ("solid", "dash")
STYLE = """<style>
.st-key-variants-trained-alike { display: grid; grid-template-columns: 5fr 6fr; gap: 1rem 2.5rem; align-items: start }
@media (max-width: 1180px) { .st-key-variants-trained-alike { grid-template-columns: 1fr } }
.st-key-variants-trained-alike > * { min-width: 0; width: 100% }
.trained { width: 100%; border-collapse: collapse; font-size: .82rem; font-variant-numeric: tabular-nums }
.trained th, .trained td { padding: .22rem .5rem; text-align: right; border: 0 }
.trained th { font-weight: 500; opacity: .72 } .trained th:first-child, .trained td:first-child { text-align: left }
.trained tr + tr { border-top: 1px solid color-mix(in srgb, currentColor 12%, transparent) }
</style>"""
TERMS = {
    "model": "Open it on the Heads page.",
    "loss 512": "Nats a token on speeches it never saw, over the 512 tokens it learned from at a time.",
    "loss 2,048": "The same over 2,048 tokens, four times as long as what it learned from.",
    "tokens/s": "How many tokens one core reads in a second, of 4,096 at a time.",
    "MiB": "Memory at the peak of reading 4,096 tokens.",
    "parameters": "How many numbers the model has.",
}
PARAGRAPHS = (
    (
        "The loss is on held-out speeches, where little depends on what stands far back: a window does as well there "
        "as full attention. Recall is another task that the same architectures learned: pairs of keys and values stand "
        "in a text, and a key comes again; which value went with it? It is what cheap attention gives up first.",
        (("Arora et al. 2023", "https://arxiv.org/abs/2312.04927"),),
    ),
    (
        "Each had one seed and a few minutes of one core. That one learned it shows that it can; that one did not, "
        "within these steps, does not show that it cannot.",
        (),
    ),
)


@cache
def measured() -> pd.DataFrame:
    """A model a row: model, title, parameters, loss 512, loss 2,048, tokens/s, MiB, and recall by distance."""
    rows = json.loads((ASSETS / "variants.json").read_text("utf-8"))
    return pd.DataFrame(
        [
            {
                "model": name,
                "title": row["title"],
                "parameters": row["parameters"],
                **{f"loss {int(length):,}": loss for length, loss in row["loss"].items()},
                "tokens/s": row["tokens_per_second"],
                "MiB": row["bytes"] / 2**20,
                **{f"recall {distance}": share for distance, share in row["recall"].items()},
            }
            for name, row in rows.items()
        ]
    )


def trained() -> None:
    """The part of the page."""
    table = measured()
    with st.container(key="variants-trained-alike"):
        left, right = st.container(), st.container()
    with left:
        st.html(heading("Recall by distance", "share of values told right, by tokens since the pair"))
        st.plotly_chart(_recall(table), key="variants-recall")
        note("Guessing at random is right 3 % of the time at most. Lines that lie on each other: hover.")
    with right:
        st.html(heading("What each costs", "one text, one tokenizer, the same steps"))
        st.html(_rows(table))
        file_buttons("variants-trained", csv=lambda: csv(table))
    about_card(PARAGRAPHS)


def _recall(table: pd.DataFrame):
    import plotly.graph_objects as go  # half a second, for those who look at this part

    columns = [name for name in table if name.startswith("recall ")]
    distances = [int(name.split()[1]) for name in columns]
    fig = go.Figure()
    for number, (_, row) in enumerate(table.iterrows()):
        fig.add_scatter(
            x=distances,
            y=[row[name] for name in columns],
            name=row["title"],
            mode="lines+markers",
            line={
                "color": COLOURS[number % len(COLOURS)],
                "dash": DASHES[number // len(COLOURS) % len(DASHES)],
                "width": 1.6,
            },
            hovertemplate="%{x:,} tokens back: %{y:.0%}",
        )
    fig.update_xaxes(type="log", tickvals=distances, title="tokens since the pair", title_font_size=11)
    fig.update_yaxes(tickformat=".0%", rangemode="tozero", title="told right", title_font_size=11)
    fig.update_layout(height=340, margin={"l": 0, "r": 0, "t": 4, "b": 0}, legend={"orientation": "h", "y": -0.22})
    return fig


def _rows(table: pd.DataFrame) -> str:
    shown = ["loss 512", "loss 2,048", "tokens/s", "MiB", "parameters"]
    heads = "".join(f"<th title='{html.escape(TERMS[name])}'>{name}</th>" for name in ("model", *shown))
    forms = {"tokens/s": "{:,.0f}", "MiB": "{:.0f}", "parameters": "{:,}"}
    body = "".join(
        f"<tr><td>{_link(row['model'], row['title'])}</td>"
        + "".join(f"<td>{forms.get(name, '{:.3f}').format(row[name])}</td>" for name in shown)
        + "</tr>"
        for _, row in table.iterrows()
    )
    return f"{STYLE}<table class='trained' data-testid='trained'><tr>{heads}</tr>{body}</table>"


def _link(model: str, title: str) -> str:
    if model not in available():
        return html.escape(title)
    return f"<a href='/heads?model={html.escape(model)}' target='_self'>{html.escape(title)}</a>"
