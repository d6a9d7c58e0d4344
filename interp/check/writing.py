"""A report on paper: as Markdown, and as one page of HTML. Reads a report, knows nothing of how it was made."""

from __future__ import annotations

import html

STYLE = (
    "body{font:16px/1.5 system-ui,sans-serif;max-width:56rem;margin:2rem auto;padding:0 1rem;color:#1c2733}"
    "h2{font-size:1.1rem}th{text-align:left}td,th{padding:.1rem .6rem;vertical-align:top;border-top:1px solid #ddd}"
    ".ok{color:#1a7f5a}.bad{color:#b3261e}svg{max-width:24rem;display:block}"
)
OURS = "Errors of Headwise"
ADVICE = "Advice"


def markdown(report) -> str:
    out = [f"# Mask check of {report.model}", "", f"Promise: `{report.expect}`{report.by}. **{_verdict(report)}.**"]
    for f in report.findings:
        out += ["", f"## {f.cls} – {f.where}", "", f.sentence, "", *(f"- {line}" for line in _facts(f))]
        if f.picture is not None:
            out += ["", f"{f.picture.of}:", "", "```", str(f.picture), "```"]
    if report.advice:
        out += ["", f"## {ADVICE}", "", *(f"- {f.sentence} What to do: {f.fix}." for f in report.advice)]
    if report.errors:
        out += ["", f"## {OURS}", "", *(f"- {p.letter} {p.name}: {p.detail}" for p in report.errors)]
    out += ["", "## What was probed", "", "| promise | probe | outcome | s |", "|---|---|---|---|"]
    out += [f"| {p.name} | {p.letter} | {_cell(p.outcome)} | {p.seconds:.2f} |" for p in report.probed]
    out += ["", f"Read as {report.reading}.", *(f"- {note}" for note in report.notes)]
    out += ["", f"Largest tolerated difference: {report.tolerated:.1e}. Took {report.seconds:.1f} s.", ""]
    return "\n".join(out)


def page(report) -> str:
    """One file without scripts or network."""
    e = html.escape
    body = [
        f"<h1>Mask check of {e(report.model)}</h1>",
        f"<p>Promise: <code>{e(report.expect)}</code>{e(report.by)}. "
        f"<b class={'ok' if report.ok else 'bad'}>{_verdict(report)}</b></p>",
    ]
    for f in report.findings:
        facts = "".join(f"<li>{e(line)}</li>" for line in _facts(f))
        drawn = drawing(f.picture) if f.picture is not None else ""
        body.append(
            f"<section><h2>{e(f.cls)} – {e(f.where)}</h2><p>{e(f.sentence)}</p><ul>{facts}</ul>{drawn}</section>"
        )
    if report.advice:
        advised = "".join(f"<li>{e(f.sentence)} What to do: {e(f.fix)}.</li>" for f in report.advice)
        body.append(f"<h2>{ADVICE}</h2><ul>{advised}</ul>")
    if report.errors:
        failed = "".join(f"<li>{p.letter} {e(p.name)}: {e(p.detail)}</li>" for p in report.errors)
        body.append(f"<h2 class=bad>{OURS}</h2><ul>{failed}</ul>")
    body.append("<h2>What was probed</h2><table><tr><th>promise<th>probe<th>outcome<th></tr>")
    for p in report.probed:
        cells = (e(p.name), p.letter, e(p.outcome), f"{p.seconds:.2f} s")
        body.append("<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>")
    body.append(
        f"</table><p>Read as {e(report.reading)}.</p><ul>" + "".join(f"<li>{e(n)}</li>" for n in report.notes) + "</ul>"
    )
    body.append(f"<p>Largest tolerated difference: {report.tolerated:.1e}. Took {report.seconds:.1f} s.</p>")
    if report.dependency is not None and report.ok:
        body.append(f"<h2>Who depends on whom</h2>{drawing(report.dependency)}")
    return f"<!doctype html><meta charset=utf-8><title>Mask check</title><style>{STYLE}</style>" + "\n".join(body)


def drawing(edges) -> str:
    """SVG. Rows are queries: dark = depends and may, red = depends and may not, grey = promised and not seen."""
    small = edges.crop(48)
    cells = []
    for query, (seen, may) in enumerate(zip(small.observed.tolist(), small.expected.tolist(), strict=True)):
        for key, (s, m) in enumerate(zip(seen, may, strict=True)):
            if s or m:
                colour = "#b3261e" if s and not m else "#1f4e79" if s else "#c9d3dc"
                cells.append(f'<rect x="{key}" y="{query}" width=".92" height=".92" fill="{colour}"/>')
    rows, columns = small.observed.shape
    title = html.escape(f"{edges.of}: rows are queries, columns keys; red is seen and forbidden")
    return f'<svg viewBox="0 0 {columns} {rows}" role="img"><title>{title}</title>{"".join(cells)}</svg>'


def _verdict(report) -> str:
    return report.verdict[:1].upper() + report.verdict[1:]


def _cell(text: str) -> str:
    """In a table of Markdown."""
    return text.replace("|", "\\|").replace("\n", " ")


def _facts(f) -> list[str]:
    lines = [f"effect: {f.effect:.2g} × the output's largest value"]
    lines += [f"cause: {f.cause}{f.surely}"] * bool(f.cause) + [f"fix: {f.fix}"] * bool(f.fix)
    lines += [f"happens: {f.mode}"] * bool(f.mode)
    if f.smallest:
        lines.append("smallest input: " + ", ".join(f"{k} {v}" for k, v in f.smallest.items()))
    if f.also:
        lines.append(f"also: {', '.join(f.also)}")
    return lines
