"""Sessions share one module in threads: each sees its own run, and nothing stays behind."""

import contextlib
import copy
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import nn
from torch.nn.modules import module as torch_modules
from torch.overrides import _get_current_function_mode_stack

from headwise.interp.errors import InputError
from headwise.interp.run.capture import capture
from headwise.interp.run.edits import ZeroHead
from headwise.interp.run.tap import listening
from headwise.interp.run.tap.mode import Tap
from headwise.interp.subject import Subject, tensors_only

H, C = 3, 12
HOOKS = (
    "_forward_hooks",
    "_forward_pre_hooks",
    "_backward_hooks",
    "_forward_hooks_with_kwargs",
    "_forward_hooks_always_called",
)


@pytest.fixture
def model():
    layer = nn.TransformerEncoderLayer(C, H, 16, batch_first=True)
    return nn.TransformerEncoder(layer, 2, enable_nested_tensor=False).eval().requires_grad_(False)


def subject(module):
    return Subject(module, tensors_only(module), "shared", "encoder")


def texts(count):
    return [torch.randn(1 + n % 3, 4 + n % 5, C) for n in range(count)]


@pytest.fixture(autouse=True)
def nothing_left(model):
    """After every test: no hook on any module, no global hook, no mode, no recorder, and the compiler as it was."""
    names = [name for name in vars(torch_modules) if name.startswith("_global_") and "hook" in name]

    def hooks():
        return {name: copy.copy(getattr(torch_modules, name)) for name in names}

    before = hooks()
    yield
    assert hooks() == before
    assert not any(getattr(m, name) for m in model.modules() for name in HOOKS)
    assert not any(isinstance(mode, Tap) for mode in _get_current_function_mode_stack())
    assert listening._recorder.get() is None
    assert (listening._listeners, listening._hooks) == (0, [])
    assert torch._dynamo.eval_frame._stance.stance == "default"


def test_twenty_threads_capture_one_module(model):
    inputs = texts(20)
    alone = [capture(subject(model), {"src": x}) for x in inputs]
    together = threading.Barrier(20)

    def work(x):
        together.wait(30)
        return capture(subject(model), {"src": x})

    with ThreadPoolExecutor(20) as pool:
        shared = list(pool.map(work, inputs))
    for mine, reference, x in zip(shared, alone, inputs, strict=True):
        assert [c.name for c in mine.calls] == ["layers.0.self_attn", "layers.1.self_attn"]
        for call, expected in zip(mine.calls, reference.calls, strict=True):
            assert call.shape == (x.shape[0], H, x.shape[1], x.shape[1])
            torch.testing.assert_close(call.band(0, call.queries), expected.band(0, call.queries))


def test_edits_stay_in_their_thread(model):
    """While a third of the threads ablates heads, plain runs and captures of the same module are untouched."""
    inputs = texts(20)
    with torch.no_grad():
        plain = [model(x) for x in inputs]
    ablated = [capture(subject(model), {"src": x}, edits=(ZeroHead(0, 1),)).logits for x in inputs]
    assert all((a - p).abs().max() > 1e-3 for a, p in zip(ablated, plain, strict=True))
    together = threading.Barrier(20)

    def work(n):
        together.wait(30)
        for _ in range(3):
            if n % 3 == 0:
                got = capture(subject(model), {"src": inputs[n]}, edits=(ZeroHead(0, 1),)).logits
            elif n % 3 == 1:
                got = capture(subject(model), {"src": inputs[n]}).logits
            else:
                with torch.no_grad():
                    got = model(inputs[n])
            torch.testing.assert_close(got, ablated[n] if n % 3 == 0 else plain[n], atol=1e-5, rtol=1e-5)

    with ThreadPoolExecutor(20) as pool:
        list(pool.map(work, range(20)))


class Broken(nn.Module):
    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, src):
        self.inner(src)
        raise ZeroDivisionError("in the model")


@pytest.mark.filterwarnings("error")
def test_an_exception_in_the_model_leaves_nothing(model):
    broken = Broken(model)
    for _ in range(2):
        with pytest.raises(InputError, match="ZeroDivisionError: in the model"):
            capture(subject(broken), {"src": torch.randn(1, 4, C)})
    assert len(capture(subject(model), {"src": torch.randn(1, 4, C)}).calls) == 2


def test_threads_whose_model_fails_do_not_disturb_the_others(model):
    broken = Broken(model)
    together = threading.Barrier(10)

    def work(n):
        together.wait(30)
        if n % 2:
            with pytest.raises(InputError, match="ZeroDivisionError"):
                capture(subject(broken), {"src": torch.randn(1, 4, C)})
            return 2
        return len(capture(subject(model), {"src": torch.randn(1, 4, C)}).calls)

    with ThreadPoolExecutor(10) as pool:
        assert list(pool.map(work, range(10))) == [2] * 10


def test_a_model_that_catches_its_own_exception_is_followed_on(model):
    class Forgiving(nn.Module):
        def __init__(self):
            super().__init__()
            self.broken, self.good = Broken(model), nn.MultiheadAttention(C, H, batch_first=True)

        def forward(self, src):
            with contextlib.suppress(ZeroDivisionError):
                self.broken(src)
            return self.good(src, src, src, need_weights=False)[0]

    cap = capture(subject(Forgiving().eval()), {"src": torch.randn(2, 4, C)})
    assert [c.name for c in cap.calls][-1] == "good"


def test_nested_capture_raises(model):
    class Nested(nn.Module):
        def forward(self, src):
            return capture(subject(model), {"src": src}).logits

    with pytest.raises(InputError, match="already capturing"):
        capture(subject(Nested()), {"src": torch.randn(1, 4, C)})


def test_capturing_changes_no_weight_and_needs_no_gradient(model):
    before = {k: v.clone() for k, v in model.state_dict().items()}
    cap = capture(subject(model), {"src": torch.randn(1, 4, C)}, edits=(ZeroHead(1, 0),))
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert not any(t.requires_grad for c in cap.calls for t in (*c.form.tensors, c.v) if t is not None)
    assert torch.is_grad_enabled()


def test_a_capture_outlives_its_thread(model):
    with ThreadPoolExecutor(1) as pool:
        cap = pool.submit(capture, subject(model), {"src": torch.randn(2, 5, C)}).result()
    assert cap.fidelity <= 1e-5
    assert len(cap.residuals) == 3
    assert cap.residuals[0].shape == (2, 5, C)
    torch.testing.assert_close(cap.residuals[0], cap.inputs.kwargs["src"])
    torch.testing.assert_close(cap.residuals[-1], cap.logits)
