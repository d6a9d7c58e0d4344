"""Path patching against its two runs made by hand, and against TransformerLens."""

import json
from itertools import product
from pathlib import Path

import pytest

from headwise import capture, load, rerun
from headwise.interp.analysis.patching.paths import path_patch
from headwise.interp.analysis.targets import target
from headwise.interp.errors import InputError
from headwise.interp.run.acting import read_sites
from headwise.interp.run.edits import HeadOutput, Key, Pattern, Query, Replace, Residual, Value, Write
from headwise.interp.run.sweeping import Cancelled

PEER = json.loads(Path(__file__).with_name("transformerlens.json").read_text("utf-8"))
SENDERS = [HeadOutput(0, 3), HeadOutput(1, 6), HeadOutput(2, 2), Write(0, "mlp"), Write(2, "mlp"), Residual(0)]
RECEIVERS = [Query(3, 2), Key(2, 1), Value(3, 0), Write(3, "mlp"), "answer"]


@pytest.fixture(scope="module")
def runs():
    subject = load("tiny-decoder")
    return capture(subject, "The Congress of the United"), capture(subject, "The people of the United")


def by_hand(run, source, sender, receiver, through):
    """One pair by the two runs of the paper, everything held but what is asked."""
    wanted = target(run)
    sites = [HeadOutput(call.layer, None) for call in run.calls]
    sites += [Write(block, "mlp") for block in range(len(run.calls))] if through == "nothing" else []
    own, given = read_sites(run, sites), read_sites(source, [sender])
    held = [Replace(site, own[site]) for site in sites if site not in (sender, receiver)]
    first = rerun(run, [*held, Replace(sender, given[sender])])
    if receiver == "answer":
        return wanted.value(first) - wanted.value(run)
    reached = read_sites(first, [receiver])[receiver]
    return wanted.value(rerun(run, [Replace(receiver, reached)])) - wanted.value(run)


@pytest.mark.parametrize("how", ["noising", "denoising"])
@pytest.mark.parametrize("through", ["mlps", "nothing"])
def test_each_path_as_its_two_runs_have_it(runs, how, through):
    table = path_patch(*runs, SENDERS, RECEIVERS, how=how, through=through)
    run, source = runs if how == "noising" else runs[::-1]
    expected = [by_hand(run, source, *pair, through) for pair in product(SENDERS, RECEIVERS)]
    assert table.effect.tolist() == pytest.approx(expected, abs=1e-4)
    assert table.effect.abs().max() > 0.05
    never = table[(table.from_kind == "mlp") & (table.from_layer == 2) & (table.to_kind == "key")]
    assert never.effect.tolist() == [0.0]  # the key is of layer 2, the MLP comes after it
    gap = table.attrs["clean"] - table.attrs["corrupted"]
    assert table.restored.tolist() == pytest.approx((table.effect / (-gap if how == "noising" else gap)).tolist())


def test_paths_of_smollm2_as_transformerlens_has_them(smollm2_folder):
    """benchmarks/transformerlens.py wrote its figures."""
    subject = load("smollm2-135m")
    clean, other = (capture(subject, PEER[name]) for name in ("text", "corrupted text"))
    senders = list(dict.fromkeys(HeadOutput(*one["sender"]) for one in PEER["paths"]))
    site = {"q": Query, "k": Key, "v": Value}
    receivers = list(dict.fromkeys(site[kind](*place) for kind, *place in (one["receiver"] for one in PEER["paths"])))
    table = path_patch(clean, other, senders, receivers, " Mary", " John")
    assert table.effect.tolist() == pytest.approx([one["effect"] for one in PEER["paths"]], abs=2e-5)
    assert table.effect.abs().max() > 0.04


def test_all_at_once_is_one_run_with_all_of_them(runs):
    clean, other = runs
    receivers = [Query(3, 2), Key(3, 2), Write(3, "mlp")]
    table = path_patch(clean, other, [HeadOutput(0, 5)], receivers, together=True)
    own = read_sites(clean, [HeadOutput(layer, None) for layer in range(4)])
    held = [Replace(site, value) for site, value in own.items()]
    given = read_sites(other, [HeadOutput(0, 5)])[HeadOutput(0, 5)]
    reached = read_sites(rerun(clean, [*held, Replace(HeadOutput(0, 5), given)]), receivers)
    wanted = target(clean)
    changed = wanted.value(rerun(clean, [Replace(site, value) for site, value in reached.items()]))
    assert table.effect.tolist() == pytest.approx([changed - wanted.value(clean)], abs=1e-4)


def test_two_streams_and_cross_attention():
    subject = load("tiny-encoder-decoder")
    clean, other = (capture(subject, (word, "nˈIt")) for word in ("knight", "knitts"))
    senders, receivers = [HeadOutput(1, 2, "encoder")], [Value(1, 0, "cross"), "answer"]
    wanted = target(clean)
    table = path_patch(clean, other, senders, receivers, wanted)
    held = read_sites(clean, [HeadOutput(call.layer, None, call.stack) for call in clean.calls])
    given = read_sites(other, senders)[senders[0]]
    first = rerun(clean, [*(Replace(s, v) for s, v in held.items()), Replace(senders[0], given)])
    reached = read_sites(first, receivers[:1])[receivers[0]]
    expected = [rerun(clean, [Replace(receivers[0], reached)]), first]
    assert table.effect.tolist() == pytest.approx([wanted.value(c) - wanted.value(clean) for c in expected], abs=1e-4)


def test_what_cannot_be_asked(runs):
    with pytest.raises(InputError, match="cannot send: give HeadOutput"):
        path_patch(*runs, [Pattern(0, 1)])
    with pytest.raises(InputError, match="cannot receive: give Query"):
        path_patch(*runs, SENDERS, [HeadOutput(0, 1)])
    with pytest.raises(InputError, match="through to be mlps or nothing; got 'all'"):
        path_patch(*runs, SENDERS, through="all")
    with pytest.raises(InputError, match="head that is not there"):
        path_patch(*runs, [HeadOutput(0, 99)])
    with pytest.raises(Cancelled):
        path_patch(*runs, SENDERS, RECEIVERS, cancel=lambda: True)
    told = []
    path_patch(*runs, SENDERS, RECEIVERS, progress=told.append)
    assert told == sorted(told) and told[-1] == 1.0
