"""A report as one HTML file that needs no network: chapters, each with its sentence, its figures and its tables."""

from __future__ import annotations

import base64
import html
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import pandas as pd

Paper = tuple[str, str]  # how it is cited, and its address
ROUNDING = 1e-6  # what is less is told as nothing

Draw = Callable[[str], bytes]  # a theme, "light" or "dark" → SVG

PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'; img-src data:">
<meta name="viewport" content="width=device-width">
<meta name="color-scheme" content="light dark">
<title>{title}</title>
<style>
:root {{ --ink: #1d2733; --soft: #5d6874; --line: #dde2e7; --ground: #ffffff; --accent: #0b6e99 }}
@media (prefers-color-scheme: dark) {{
  :root {{ --ink: #e4e9ee; --soft: #9aa7b3; --line: #2b3642; --ground: #12171d; --accent: #5bb8e0 }}
}}
body {{ font: 15px/1.5 "Source Sans 3", "Helvetica Neue", Helvetica, Arial, sans-serif; color: var(--ink);
  background: var(--ground); max-width: 980px; margin: 32px auto; padding: 0 24px }}
h1 {{ font-size: 24px; font-weight: 600; margin: 0 0 4px }}
h2 {{ font-size: 18px; font-weight: 600; margin: 40px 0 2px; border-top: 1px solid var(--line); padding-top: 18px }}
h3 {{ font-size: 14px; font-weight: 600; margin: 18px 0 4px }}
p {{ margin: 0 0 10px }}
nav, footer, .small {{ color: var(--soft); font-size: 13px }}
nav a {{ margin-right: 14px }}
a {{ color: var(--accent) }}
figure {{ margin: 10px 0 14px; overflow-x: auto }}
figure img {{ max-width: 100% }}
.scroll {{ overflow-x: auto }}
.prompt {{ background: color-mix(in srgb, var(--ink) 5%, transparent); border-radius: 6px; padding: 8px 12px;
  white-space: pre-wrap; overflow-wrap: anywhere }}
table {{ border-collapse: collapse; font-size: 13px; margin: 6px 0 14px }}
th {{ font-weight: 600; text-align: left; color: var(--soft) }}
td, th {{ padding: 3px 14px 3px 0; border-bottom: 1px solid var(--line); vertical-align: top }}
td.number, th.number {{ text-align: right; font-variant-numeric: tabular-nums }}
pre {{ font-size: 12.5px; overflow-x: auto; padding: 10px 12px; border: 1px solid var(--line); border-radius: 6px }}
footer {{ border-top: 1px solid var(--line); margin-top: 44px; padding-top: 10px }}
</style>
<h1>{title}</h1>
<p class="small">{subtitle}</p>
<div class="prompt">{prompt}</div>
<nav>{contents}</nav>
{chapters}
<footer>{footer}</footer>
</html>
"""


@dataclass(frozen=True, eq=False)
class Figure:
    """A picture, drawn once for each theme; ``name`` is read out where it cannot be seen."""

    name: str
    draw: Draw

    def html(self) -> str:
        light, dark = (
            f"data:image/svg+xml;base64,{base64.b64encode(self.draw(t)).decode()}" for t in ("light", "dark")
        )
        return (
            f"<figure><picture><source srcset='{dark}' media='(prefers-color-scheme: dark)'>"
            f"<img src='{light}' alt='{html.escape(self.name, quote=True)}'></picture></figure>"
        )


@dataclass(frozen=True, eq=False)
class Table:
    """Rows with their columns' names; ``note`` stands below it."""

    frame: pd.DataFrame
    note: str = ""

    def html(self) -> str:
        numeric = [pd.api.types.is_float_dtype(self.frame[c]) for c in self.frame]
        head = "".join(_cell("th", str(c), n) for c, n in zip(self.frame, numeric, strict=True))
        rows = (
            "".join(_cell("td", written(value), n) for value, n in zip(row, numeric, strict=True))
            for row in self.frame.itertuples(index=False)
        )
        body = "".join(f"<tr>{row}</tr>" for row in rows)
        note = f"<p class='small'>{html.escape(self.note)}</p>" if self.note else ""
        return f"<div class='scroll'><table><tr>{head}</tr>{body}</table></div>{note}"


@dataclass(frozen=True, eq=False)
class Text:
    """A paragraph; ``marked`` is HTML that was escaped by who made it."""

    plain: str = ""
    marked: str = ""

    def html(self) -> str:
        return f"<p>{self.marked or html.escape(self.plain)}</p>"


@dataclass(frozen=True, eq=False)
class Code:
    """Python."""

    lines: str

    def html(self) -> str:
        return f"<pre>{html.escape(self.lines)}</pre>"


@dataclass(frozen=True, eq=False)
class Chapter:
    """``sentence`` is what one should take away · ``parts`` stand below it, (title, part) · ``about`` says what it can
    and cannot tell, with the papers."""

    title: str
    sentence: str
    parts: Sequence[tuple[str, Figure | Table | Text | Code]] = ()
    about: str = ""
    papers: Sequence[Paper] = field(default=())

    @property
    def anchor(self) -> str:
        return "".join(c if c.isalnum() else "-" for c in self.title.lower())

    def html(self) -> str:
        parts = "".join(
            f"{f'<h3>{html.escape(title)}</h3>' if title else ''}{part.html()}" for title, part in self.parts
        )
        cited = " · ".join(
            f"<a href='{html.escape(link, quote=True)}'>{html.escape(name)}</a>" for name, link in self.papers
        )
        about = f"<p class='small'>{html.escape(self.about)} {cited}</p>" if self.about or cited else ""
        return f"<h2 id='{self.anchor}'>{html.escape(self.title)}</h2><p>{html.escape(self.sentence)}</p>{parts}{about}"


def page(title: str, subtitle: str, prompt: str, chapters: Iterable[Chapter], footer: str) -> str:
    """The whole report. All of its text is escaped here."""
    chapters = list(chapters)
    return PAGE.format(
        title=html.escape(title),
        subtitle=html.escape(subtitle),
        prompt=html.escape(prompt),
        contents="".join(f"<a href='#{c.anchor}'>{html.escape(c.title)}</a>" for c in chapters),
        chapters="".join(chapter.html() for chapter in chapters),
        footer=html.escape(footer),
    )


def written(value: object) -> str:
    """A value in a table: numbers to three digits, what is missing as nothing."""
    if isinstance(value, float):
        if value != value:
            return ""
        return "0" if abs(value) < ROUNDING else f"{value:.3g}".replace("-", "−")
    return "" if value is None or value is pd.NA else str(value)


def _cell(tag: str, text: str, number: bool) -> str:
    return f"<{tag}{' class=number' if number else ''}>{html.escape(text)}</{tag}>"
