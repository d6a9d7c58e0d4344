"""The parts that are patched one at a time, and what of two runs stands at them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace

from torch import Tensor

from headwise.interp.analysis.patching.pair import Pair
from headwise.interp.errors import InputError
from headwise.interp.run.acting import Plan, Read, read_sites
from headwise.interp.run.capture import Capture
from headwise.interp.run.edits import Edit, Replace
from headwise.interp.run.sites import AttentionSite, HeadOutput, Pattern, Residual, Scores, Site, Write

KINDS = ("residual", "attention", "mlp", "heads", "patterns")
WRITES = {"attention": ("attention", "cross"), "mlp": ("mlp",)}  # a kind of patching → kinds of writes
UNEVEN = (
    "Patterns are exchanged only between inputs of one length; these are cut into {} and {} positions. Patch the "
    "heads' outputs."
)


@dataclass(frozen=True, eq=False)
class Spot:
    """One part: a site, its positions in the source and in the run, and how a table names it."""

    site: Site
    given: list[int]
    taken: list[int]
    place: dict[str, object]

    def values(self, read: dict[Site, Tensor]) -> Tensor:
        """What ``read`` has at the site, in the source → (1, positions, C)."""
        return part_of(read, self.site)[..., self.given, :]

    def own(self, read: dict[Site, Tensor]) -> Tensor:
        """What ``read`` has there, in the run that is patched."""
        return part_of(read, self.site)[..., self.taken, :]

    def edit(self, read: dict[Site, Tensor]) -> Edit:
        """The source's values, put into the run."""
        return Replace(self.site, self.values(read), tuple(self.taken))


def spots_of(pair: Pair, sites: str | Sequence[str | Site]) -> list[Spot]:
    """Everything of a kind, or of several, and single sites. Raises InputError for what is no kind, or is not there."""
    chosen = [sites] if isinstance(sites, str) else list(sites)
    return [spot for one in chosen for spot in (_kind(pair, one) if isinstance(one, str) else [_whole(pair, one)])]


def _kind(pair: Pair, kind: str) -> list[Spot]:
    if kind not in KINDS:
        raise InputError(f"patch expects sites to be {', '.join(KINDS)} or a list of sites; got {kind!r}.")
    if kind in ("heads", "patterns"):
        site = HeadOutput if kind == "heads" else Pattern
        calls = [call for stack in pair.run.stacks for call in pair.run.stack(stack)]
        return [_whole(pair, site(call.layer, head, call.stack)) for call in calls for head in range(call.heads)]
    return [spot for site in _of_stream(pair.run, kind) for spot in _single(pair, site)]


def kinds_of(clean: Capture, corrupted: Capture) -> dict[str, str]:
    """Each of KINDS → "", or the one sentence why it cannot be patched between these two runs."""
    found = {}
    for kind in KINDS:
        found[kind] = ""
        if kind in ("residual", "attention", "mlp"):
            try:
                _of_stream(clean, kind)
            except InputError as error:
                found[kind] = str(error)
        elif not clean.calls:
            found[kind] = f"{clean.subject.name} has no attention that was seen, so no heads."
        elif kind == "patterns":
            sizes = [(one.keys, other.keys) for one, other in zip(clean.calls, corrupted.calls, strict=False)]
            sizes += [(one.queries, other.queries) for one, other in zip(clean.calls, corrupted.calls, strict=False)]
            found[kind] = next((UNEVEN.format(*pair) for pair in sizes if pair[0] != pair[1]), "")
    return found


def named(cap: Capture, site: Site) -> dict[str, object]:
    """How a table names a site."""
    if isinstance(site, AttentionSite):
        kind = "head" if isinstance(site, HeadOutput) else site.part
        return {"kind": kind, "stack": site.stack or cap.stacks[0], "layer": site.layer, "head": site.head}
    place = asdict(site)
    kind = place.get("kind") or f"residual {place['when']}"
    return {"kind": kind, "stack": place["stream"] or cap.anatomy.stream().name, "block": place["block"]}


def read(cap: Capture, sites: Iterable[Site], of=None):
    """``read_sites``, each attention read once for all of its heads. Raises InputError for a site that is not there."""
    sites = list(sites)
    Plan(cap).add(map(Read, sites))
    wanted = dict.fromkeys(replace(s, head=None) if isinstance(s, AttentionSite) else s for s in sites)
    return read_sites(cap, [*wanted], of)


def part_of(values: dict[Site, Tensor], site: Site) -> Tensor:
    """What a ``read`` has at a site."""
    if isinstance(site, AttentionSite):
        return site.of(values[replace(site, head=None)])
    return values[site]


def _of_stream(cap: Capture, kind: str) -> list[Site]:
    anatomy = cap.anatomy
    if not anatomy.streams:
        why = " ".join(anatomy.refused).rstrip(".")
        raise InputError(f"The residual stream of {cap.subject.name} is not known: {why}. Patch its heads.")
    if kind == "residual":
        return [Residual(block, "before", stream.name) for stream in anatomy.streams for block in _blocks(stream)]
    there = [(branch.block, branch.kind, stream.name) for stream in anatomy.streams for branch in stream.writes]
    single = Counter(there)
    found = [Write(*one) for one in there if one[0] is not None and one[1] in WRITES[kind] and single[one] == 1]
    if not found:
        kinds = ", ".join(dict.fromkeys(f"{write!r}" for _, write, _ in there))
        raise InputError(f"{cap.subject.name} has no {kind} that writes by itself; its blocks write {kinds}.")
    return found


def _blocks(stream) -> list[int]:
    return sorted({branch.block for branch in stream.writes if branch.block is not None})


def _single(pair: Pair, site: Site) -> list[Spot]:
    """A site at each of its positions."""
    pairs, place = pair.alignment(site), named(pair.run, site)
    found = []
    for clean, corrupted in pairs.pairs:
        given, taken = (clean, corrupted) if pair.how == "denoising" else (corrupted, clean)
        told = {"position": clean, "partner": corrupted, "token": pairs.clean.labels[clean]}
        found.append(Spot(site, [given], [taken], place | told))
    return found


def _whole(pair: Pair, site: Site) -> Spot:
    """A site at all positions."""
    if isinstance(site, Pattern | Scores) and not pair.alignment(site).whole:
        pairs = pair.alignment(site)
        raise InputError(UNEVEN.format(len(pairs.clean), len(pairs.corrupted)))
    return Spot(site, *pair.positions(site), named(pair.run, site))
