"""One run read: it changes nothing, leaves nothing, sees what was edited, and is refused where it cannot hold."""

import gc
import weakref
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest
import torch
from torch import nn

from headwise.interp.errors import InputError
from headwise.interp.run.anatomy import anatomy, discover, read
from headwise.interp.run.capture import capture, rerun
from headwise.interp.run.edits import ZeroHead
from headwise.interp.run.outputs import primary
from headwise.interp.run.running import run
from headwise.interp.run.tap.places import Seam
from headwise.interp.run.tap.recorder import Changes
from headwise.interp.subject import Inputs
from headwise.models import load, wrap
from tests.interp.run.anatomy import made

TEXT = "The people of the United States have met together."


def _found(subject, seed):
    return anatomy(subject, made.ids(2, 10 + seed, seed))


def test_it_is_found_once_and_forgotten_with_its_module(monkeypatch):
    net = made.made(made.plain)
    subject, runs = wrap(net), []
    monkeypatch.setattr(discover, "trace", lambda *given, own=discover.trace: runs.append(1) or own(*given))
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(partial(_found, subject), range(8)))
    assert len(runs) == 1 and all(one is found[0] for one in found)
    held = weakref.ref(net)
    del net, subject, found, monkeypatch
    gc.collect()
    assert held() is None  # neither the anatomy nor what remembers it keeps the module


def test_the_mode_of_each_part_is_put_back():
    net = made.made(made.plain)
    net.ff[1].train()
    modes = [module.training for module in net.modules()]
    anatomy(wrap(net), made.ids())
    assert [module.training for module in net.modules()] == modes


class Failing(nn.Module):
    """Its attention fails while told to."""

    def __init__(self):
        super().__init__()
        self.net, self.fails = made.made(made.plain), False
        self.net.at[1].register_forward_pre_hook(self._fail)

    def _fail(self, module, given):
        if self.fails:
            raise RuntimeError("out of order")

    def forward(self, ids):
        return self.net(ids)


def test_an_exception_leaves_nothing_behind():
    net = Failing()
    subject, inputs = wrap(net.train()), Inputs(made.ids())
    hooks = len(nn.modules.module._global_forward_hooks), len(nn.modules.module._global_forward_pre_hooks)
    net.fails = True
    with pytest.raises(InputError, match="out of order"):
        anatomy(subject, inputs)
    assert all(module.training for module in (net, net.net.ff[0][1])) or net.training
    assert hooks == (len(nn.modules.module._global_forward_hooks), len(nn.modules.module._global_forward_pre_hooks))
    net.fails = False
    found = anatomy(subject, inputs)
    net.fails = True
    with pytest.raises(InputError, match="out of order"):
        read(subject, inputs, found)
    net.fails = False
    assert torch.equal(read(subject, inputs, found).output, net(**inputs.kwargs))
    assert hooks == (len(nn.modules.module._global_forward_hooks), len(nn.modules.module._global_forward_pre_hooks))


def test_threads_do_not_see_each_others_streams():
    subject = load("tiny-decoder")
    texts = [f"The people number {i} of the United States" for i in range(8)]
    alone = [capture(subject, text, stream=True).stream for text in texts]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(lambda text: capture(subject, text, stream=True).stream, texts))
    for one, other in zip(alone, together, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(one.states(), other.states(), strict=True))


def test_an_edit_is_seen_in_the_stream():
    subject = load("tiny-decoder")
    cap = capture(subject, TEXT)
    branch = cap.anatomy.stream().writes[2]  # the attention of block 1
    before, edited = cap.stream, rerun(cap, [ZeroHead(1, 2)], stream=True)
    after = edited.stream
    assert torch.equal(after.states()[2], before.states()[2])  # before it
    gone = before.head(branch, 2)
    torch.testing.assert_close(before.write(branch) - gone, after.write(branch), atol=1e-5, rtol=1e-5)
    assert not after.head(branch, 2).any() and not torch.equal(after.states()[3], before.states()[3])
    lazy = rerun(cap, [ZeroHead(1, 2)]).stream
    assert torch.equal(lazy.states()[-1], after.states()[-1])
    assert after.proof.exact and after.proof.total <= 1e-5


def test_a_change_at_a_place_of_the_anatomy():
    """The branch's own place: what is added is put to zero there, and the stream goes on without it."""
    subject = load("tiny-decoder")
    inputs, found = subject.encode(TEXT), anatomy(subject)
    branch = found.stream().writes[1]
    seam = Seam()
    seam.change(branch.place, branch.side, lambda t: torch.zeros_like(t))
    reading = read(subject, inputs, found, changes=Changes(seam=seam))
    assert not reading.write(branch).any() and torch.equal(reading.states()[1], reading.states()[2])
    output, _ = run(subject, inputs, changes=Changes(seam=seam))
    assert torch.equal(reading.logits, output)


@pytest.mark.parametrize("frozen", [True, False])
def test_gradients_reach_every_state(frozen):
    net = made.made(made.plain)
    subject, inputs = wrap(net), Inputs(made.ids())
    net.requires_grad_(not frozen)
    reading = read(subject, inputs, anatomy(subject, inputs), grad=True)
    states = reading.states()
    grads = torch.autograd.grad(reading.output[0, -1, 3], states)
    assert all(g.abs().sum() > 0 for g in grads)
    step = 1e-2 * torch.randn_like(states[3])
    seam = Seam()
    seam.change(reading.anatomy.stream().states[3], None, lambda t: t + step)  # central differences, in float32
    output, _ = run(subject, inputs, changes=Changes(seam=seam))
    seam.results = {reading.anatomy.stream().states[3]: [lambda t: t - step]}
    other, _ = run(subject, inputs, changes=Changes(seam=seam))
    assert float((output - other)[0, -1, 3] / 2) == pytest.approx(float((grads[3] * step).sum()), rel=2e-2, abs=1e-4)


def test_another_way_through_the_model_is_refused():
    class Loops(nn.Module):
        """Runs as many blocks as it is told."""

        def __init__(self):
            super().__init__()
            self.net = made.made(made.plain)

        def forward(self, ids, blocks=3):
            net = self.net
            x = net.embed(ids)
            for i in range(blocks):
                x = made.plain(net, x, i)
            return net.head(net.final(x))

    subject = wrap(Loops().eval())
    found = anatomy(subject, made.ids())
    with pytest.raises(InputError, match="takes another way through Loops"):
        read(subject, Inputs({**made.ids(), "blocks": 2}), found)
    assert len(anatomy(subject, {**made.ids(), "blocks": 2}).stream().blocks) == 2  # another kind of input


def test_what_is_refused_says_why():
    subject = wrap(made.made(made.fused))
    cap = capture(subject, made.ids(), stream=True)
    with pytest.raises(InputError, match="no residual stream that could be proven"):
        cap.stream  # noqa: B018
    with pytest.raises(InputError, match="says of no input how to make one"):
        anatomy(wrap(made.made(made.plain)))
    with pytest.raises(InputError, match="There is no residual stream 'encoder'; decoder"):
        capture(load("tiny-decoder"), TEXT).stream.states("encoder")
    with pytest.raises(InputError, match=r"The heads of .* are not known"):
        reading = capture(load("tiny-decoder"), TEXT).stream
        reading.head(reading.anatomy.stream().writes[1], 0)


def test_reading_changes_no_bit():
    for name in ("tiny-decoder", "smollm2-135m", "tiny-attention-only"):
        subject = load(name)
        inputs = subject.encode(TEXT)
        with torch.no_grad():
            plain = subject.module(**inputs.kwargs)
        reading = read(subject, inputs, anatomy(subject))
        assert torch.equal(primary(reading.output), primary(plain))


def test_a_capture_that_made_the_last_logits_alone_can_make_the_others():
    """Its stream is read in the same run, and the rest of the readout when somebody asks."""
    cap = capture(load("smollm2-135m"), TEXT, stream=True)
    with torch.no_grad():
        whole = cap.subject.module(**cap.inputs.kwargs).logits
    assert cap.stream.spared and torch.equal(cap.stream.logits, whole)
    assert torch.equal(cap.stream.unembed(cap.stream.states()[-1]), whole)


def test_a_state_stands_where_the_addition_made_it():
    """A norm's cast to the type that is there already hands on the same tensor: what is changed after it would pass
    the next addition by."""
    subject = load("smollm2-135m")
    stream = anatomy(subject).stream()
    assert {place.operation for place in stream.states[1:]} == {"add"}
    assert stream.states[0].path == "model.embed_tokens"
