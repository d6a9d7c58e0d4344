"""Path patching: what goes from one part to another, and nothing else, taken from another run.

    path_patch(clean, other, [HeadOutput(9, 2)], [Query(14, 3)], target=" Mary", against=" John")

Wang et al. 2023, "Interpretability in the Wild", §3.1 and appendix B; Goldowsky-Dill et al. 2023, "Localizing Model
Behavior with Path Patching". In a first run the sender says what it says in the source, every other head what it says
in the run, and what then reaches a receiver is read; in a second run the receiver is given that, and nothing else is
changed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import pandas as pd
from torch import Tensor

from headwise.interp.analysis.ablation import measuring
from headwise.interp.analysis.patching.pair import Pair, paired
from headwise.interp.analysis.patching.places import named, part_of, read
from headwise.interp.analysis.targets import Target, Wanted
from headwise.interp.errors import InputError
from headwise.interp.run.acting import Read
from headwise.interp.run.capture import Capture
from headwise.interp.run.edits import Replace
from headwise.interp.run.sites import AttentionSite, HeadOutput, Key, Query, Residual, Site, Value, Write
from headwise.interp.run.sweeping import Sweep, sweep_edits

ANSWER = "answer"  # the receiver that is the readout itself
THROUGH = ("mlps", "nothing")
KINDS = {HeadOutput: "head", Query: "query", Key: "key", Value: "value", Write: "mlp", Residual: "embedding"}
COLUMNS = tuple(f"{end}_{what}" for end in ("from", "to") for what in ("kind", "stack", "layer", "head"))

Receiver = Site | str


def path_patch(
    clean: Capture,
    corrupted: Capture,
    senders: Sequence[Site],
    receivers: Sequence[Receiver] = (ANSWER,),
    target: Wanted | Target = None,
    against: Wanted = None,
    *,
    how: str = "noising",
    through: str = "mlps",
    together: bool = False,
    progress: Callable[[float], None] = lambda fraction: None,
    cancel: Callable[[], bool] = lambda: False,
) -> pd.DataFrame:
    """What each sender does to the answer by way of each receiver → a row a pair.

    ``senders`` are ``HeadOutput`` of one head, ``Write(block, "mlp")``, or the embedding, ``Residual(0, "before")``.
    ``receivers`` are a head's ``Query``, ``Key`` or ``Value`` (of which grouped-query attention has fewer), a
    ``Write(block, "mlp")``, or "answer": straight to the readout. With ``together`` they all receive at once, a row a
    sender. ``through`` says what may pass it on: "mlps", as in the paper, or "nothing", which leaves the direct path
    through the residual stream. ``how`` is "noising" (the paper's: the clean input run, with what the corrupted one
    has) or "denoising".

    Columns: from_kind, from_stack, from_layer, from_head, to_…, ``effect`` (change of the target) and ``restored``, its
    share of the difference of the two runs; a layer of an MLP is its block. A receiver that a sender does not come
    before has 0. ``attrs`` as those of ``patch``.

    Raises InputError for a site that can be no sender or receiver, and where ``patch`` does; Cancelled.
    """
    pair = paired(clean, corrupted, target, against, how)
    _check(pair, senders, receivers, through)
    wanted = [r for r in dict.fromkeys(receivers) if r != ANSWER]
    first = 1 / (1 + (len(wanted) if not together else 1)) if wanted else 1.0
    sent = _sent(pair, senders, wanted, through, (lambda done: progress(first * done), cancel))
    groups = [tuple(wanted)] if together else [(r,) for r in wanted]
    found = _received(pair, sent, groups, (lambda done: progress(first + (1 - first) * done), cancel))
    rows = []
    for index, sender in enumerate(senders):
        place = _named("from", pair.run, sender)
        straight = {ANSWER: sent.straight[index]} if ANSWER in receivers else {}
        if together:
            effect = sum(straight.values()) + (found[index, 0] if wanted else 0.0)
            rows.append(place | {"to_kind": "together", "effect": effect})
            continue
        effects = straight | {group[0]: found[index, number] for number, group in enumerate(groups)}
        rows += [place | _named("to", pair.run, r) | {"effect": effects[r]} for r in dict.fromkeys(receivers)]
    table = pd.DataFrame(rows, columns=[*COLUMNS, "effect"])
    whole = [name for name in COLUMNS if name.endswith(("layer", "head"))]
    table = table.astype(dict.fromkeys(whole, "Int64"))
    table["restored"] = table["effect"] / pair.difference
    table.attrs |= pair.told | {"through": through, "gap": sent.gap}
    return table


def receiver_of(cap: Capture, part: str, layer: int, head: int, stack: str | None = None) -> Site:
    """The "query", "key" or "value" of a head; the key and value that it shares, where several heads share them."""
    call = cap.find(layer, stack)
    if part == "query":
        return Query(layer, head, stack)
    return {"key": Key, "value": Value}[part](layer, head * call.kv_heads // call.heads, stack)


@dataclass(frozen=True, eq=False)
class _Sent:
    """What reached each receiver from each sender, (sender, receiver) → values, and what went straight to the answer;
    pairs in which the receiver comes first are missing."""

    values: dict[tuple[int, Site], Tensor]
    straight: list[float]
    gap: float


def _sent(pair: Pair, senders: Sequence[Site], receivers: Sequence[Site], through: str, told: tuple) -> _Sent:
    """The first run of each sender: all other heads, and with "nothing" all MLPs too, are held as they are."""
    order = _Order(pair.run)
    heads = [HeadOutput(call.layer, None, call.stack) for call in pair.run.calls]
    mlps = [*_mlps(pair.run)] if through == "nothing" else []
    own, given = read(pair.run, [*heads, *mlps]), read(pair.source, senders)
    sets, reads = [], []
    for sender in senders:
        later = [r for r in receivers if order.before(sender, r)]
        reads.append({r: Read(r) for r in later})
        held = [Replace(site, own[site]) for site in (*heads, *mlps) if order.before(sender, site)]
        there, here = pair.positions(sender)
        values = part_of(given, sender)[..., there, :]
        sets.append((*reads[-1].values(), *held, Replace(sender, values, tuple(here))))
    progress, cancel = told
    found = sweep_edits(pair.run, sets, measuring(pair.run_aim), progress=progress, cancel=cancel)
    values = {(i, site): one.seen for i, each in enumerate(reads) for site, one in each.items()}
    return _Sent(values, _effects(found), found.gap)


def _received(pair: Pair, sent: _Sent, groups: Sequence[Sequence[Site]], told: tuple) -> dict[tuple[int, int], float]:
    """The second runs: (sender, group of receivers) → what the answer does."""
    places, sets = [], []
    for sender in range(len(sent.straight)):
        for number, group in enumerate(groups):
            edits = tuple(Replace(r, sent.values[sender, r]) for r in group if (sender, r) in sent.values)
            if edits:
                places.append((sender, number))
                sets.append(edits)
    progress, cancel = told
    found = sweep_edits(pair.run, sets, measuring(pair.run_aim), progress=progress, cancel=cancel)
    effects = dict(zip(places, _effects(found), strict=True))
    return {(s, n): effects.get((s, n), 0.0) for s in range(len(sent.straight)) for n in range(len(groups))}


class _Order:
    """What comes before what: by the states of the one stream where it is proven; else everything may."""

    def __init__(self, cap: Capture):
        streams = cap.anatomy.streams
        self.cap = cap
        self.writes = streams[0].writes if len(streams) == 1 else ()

    def before(self, sender: Site, site: Site) -> bool:
        """Whether what ``sender`` says may reach the other."""
        if site == sender or _same_layer(self.cap, sender, site):
            return False
        one, other = self._state(sender), self._state(site)
        return one is None or other is None or one < other

    def _state(self, site: Site) -> int | None:
        """The number of the state that the part's write is added to; −1 of the embedding, None where that is not
        known."""
        if isinstance(site, Residual):
            return -1
        if isinstance(site, Write):
            found = [w.state for w in self.writes if (w.block, w.kind) == (site.block, site.kind)]
        else:
            stack = site.stack or self.cap.stacks[0]
            calls = {(c.name, c.occurrence) for c in self.cap.calls if (c.stack, c.layer) == (stack, site.layer)}
            found = [w.state for w in self.writes if calls & set(w.calls)]
        return found[0] if found else None


def _same_layer(cap: Capture, sender: Site, site: Site) -> bool:
    """Heads of one layer work side by side."""
    both = isinstance(sender, AttentionSite) and isinstance(site, AttentionSite)
    first = cap.stacks[0] if cap.calls else None
    return both and (sender.stack or first, sender.layer) == (site.stack or first, site.layer)


def _mlps(cap: Capture) -> Iterator[Write]:
    for stream in cap.anatomy.streams:
        for write in stream.writes:
            if write.kind == "mlp" and write.block is not None:
                yield Write(write.block, "mlp", stream.name)


def _effects(found: Sweep) -> list[float]:
    return (found.figures - found.plain)[:, 0].tolist()


def _check(pair: Pair, senders: Sequence[Site], receivers: Sequence[Receiver], through: str) -> None:
    if through not in THROUGH:
        raise InputError(f"path_patch expects through to be {' or '.join(THROUGH)}; got {through!r}.")
    for sender in senders:
        embedding = isinstance(sender, Residual) and (sender.block, sender.when) == (0, "before")
        if not (embedding or _is_mlp(sender) or (isinstance(sender, HeadOutput) and sender.head is not None)):
            raise InputError(
                f'{sender} cannot send: give HeadOutput(layer, head), Write(block, "mlp") or Residual(0, "before").'
            )
    for receiver in receivers:
        head = isinstance(receiver, Query | Key | Value) and receiver.head is not None
        if not (receiver == ANSWER or _is_mlp(receiver) or head):
            raise InputError(
                f"{receiver} cannot receive: give Query, Key or Value of a head, Write(block, \"mlp\") or 'answer'."
            )


def _is_mlp(site: Receiver) -> bool:
    return isinstance(site, Write) and site.kind == "mlp"


def _named(end: str, cap: Capture, site: Receiver) -> dict[str, object]:
    if site == ANSWER:
        return {f"{end}_kind": ANSWER}
    place = named(cap, site)
    told = {"kind": KINDS[type(site)], "stack": place["stack"], "head": place.get("head")}
    told["layer"] = None if isinstance(site, Residual) else place.get("layer", place.get("block"))
    return {f"{end}_{what}": value for what, value in told.items()}
