"""Who promises what: no right model is accused, and none that forgot its mask passes."""

import inspect
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
import transformers
from torch import nn

from headwise import capture, check, sweep
from headwise.interp.attention.call import AttentionCall
from headwise.interp.attention.claims import claim, whole
from headwise.interp.attention.promise import UNKNOWN, Promise, Said
from headwise.interp.attention.scores import Computed
from headwise.interp.drawing.matrix import head_view
from headwise.interp.masks import Bidirectional, Causal, Dense, Padding, Window
from headwise.interp.subject import Subject, tensors_only
from tests.interp.attention.kinds import EYE, GROUPED, KINDS, LENGTH, LLAMA, TEXT, WINDOWS, Kind, Plain, ids, looking

transformers.logging.set_verbosity_error()


def built(kind: Kind):
    torch.manual_seed(0)
    module, inputs = kind.make()
    return module.eval(), inputs


def run(kind: Kind, module: nn.Module, inputs: dict):
    return capture(Subject(module, tensors_only(module), kind.name, kind.said), inputs)


def accused(cap) -> dict[str, tuple[int, float]]:
    """Per stack: cells drawn in the alarm colour, and the largest forbidden mass of a head."""
    mass = sweep(cap).groupby("stack")["forbidden"].max()
    leaks = {s: sum(int(head_view(cap, c, h).leaks.sum()) for c in cap.stack(s) for h in (0, -1)) for s in cap.stacks}
    return {stack: (leaks[stack], float(mass[stack])) for stack in cap.stacks}


def forget(module: nn.Module, path: str) -> None:
    """One attention that drops whatever mask it has or is given."""
    target = module.get_submodule(path)
    for name in {"is_causal", "looks_back"} & set(vars(target)):
        setattr(target, name, False)
    if "bias" in target._buffers:
        target.bias.fill_(1)
    forward, names = target.forward, inspect.signature(target.forward).parameters

    def forgetful(*args, **kwargs):
        given = dict(zip(names, args, strict=False)) | kwargs
        given |= {name: None for name in given if name in ("attention_mask", "attn_mask", "mask")}
        return forward(**given | ({"is_causal": False} if "is_causal" in given else {}))

    target.forward = forgetful


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_claims_have_their_source_and_accuse_no_right_model(kind):
    cap = run(kind, *built(kind))
    assert set(cap.stacks) == set(kind.claims)
    for stack, (mask, source) in kind.claims.items():
        for call in cap.stack(stack):
            assert source in call.claim.source
            if mask is None or call.claim.mask is None:
                assert mask == call.claim.mask
            else:
                square = (call.queries, call.keys)
                assert torch.equal(call.claim.mask.dense(*square), mask.dense(*square)), stack
    assert all(leaks == 0 and mass < 1e-3 for leaks, mass in accused(cap).values()), accused(cap)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind.forgets], ids=lambda kind: kind.name)
def test_a_mask_that_was_forgotten_in_one_layer_is_caught_there(kind):
    module, inputs = built(kind)
    forget(module, kind.forgets)
    cap = run(kind, module, inputs)
    for call in cap.calls:
        leaks = sum(int(head_view(cap, call, head).leaks.sum()) for head in range(call.heads))
        table = sweep(cap)
        mass = table[(table["stack"] == call.stack) & (table.layer == call.layer)].forbidden.max()
        assert (leaks > 0) == (mass > 1e-3) == (call.name == kind.forgets), call.name


def test_at_least_twenty_five_kinds():
    assert len(KINDS) >= 25 and all(kind.forgets for kind in KINDS if (Causal(), "is_causal") in kind.claims.values())


# -- what narrows, and what does not ---------------------------------------------------------------------------------
def test_a_given_mask_narrows_and_never_widens():
    future, window = Dense(torch.ones(4, 4, dtype=torch.bool)), Window(1, 1)
    causal = Promise(Causal(), "you said: decoder")
    assert causal.narrowed(Bidirectional()).mask == Causal()
    assert torch.equal(causal.narrowed(future).mask.dense(4, 4), Causal().dense(4, 4))
    assert torch.equal(causal.narrowed(window).mask.dense(4, 4), Window(1, 0).dense(4, 4))
    assert Promise(Bidirectional(), "").narrowed(window).mask == window
    assert UNKNOWN.narrowed(window).mask == window
    assert causal.narrowed(Causal(), Padding((3,))).mask.dense(4, 4)[:, 3].sum() == 0
    assert causal.narrowed(Causal()).source == "you said: decoder"


def test_what_the_user_says_goes_before_what_the_model_says():
    llama = transformers.LlamaModel(transformers.LlamaConfig(**GROUPED)).eval()
    subject = Subject(llama, tensors_only(llama), "llama", "encoder", promise=Window(2, 0))
    assert {str(call.claim) for call in capture(subject, {"input_ids": ids()}).calls} == {
        "Window(2, 0) (you said: Window(2, 0))"
    }
    assert min(mass for _, mass in accused(capture(subject, {"input_ids": ids()})).values()) > 0.1


def test_a_family_that_was_only_guessed_is_no_claim():
    plain = Plain(False).eval()
    guessed = Subject(plain, tensors_only(plain), "plain", "decoder", family_from="")
    (call,) = capture(guessed, torch.randn(1, LENGTH, 32)).calls
    assert call.claim == UNKNOWN
    (call,) = capture(replace(guessed, family_from="its configuration"), torch.randn(1, LENGTH, 32)).calls
    assert call.claim == Promise(Causal(), "its configuration: decoder")


@pytest.mark.parametrize(
    ("said", "stack", "mask"),
    [
        ("decoder", "decoder", Causal()), ("decoder", "vision.encoder", None), ("decoder", "text", Causal()),
        ("encoder", "encoder", Bidirectional()), ("encoder-decoder", "decoder", Causal()),
        ("encoder-decoder", "encoder", Bidirectional()), ("audio", "decoder", Causal()), ("custom", "self", None),
    ],
)  # fmt: skip
def test_a_kind_promises_for_its_own_stacks(said, stack, mask):
    assert Said(None, said).about(stack).mask == mask


@pytest.mark.parametrize("cache", [0, 5])
def test_a_cache_stands_before_the_queries(cache):
    """With 5 keys in a cache, query 0 is at position 5: it sees 6 keys."""
    llama = transformers.LlamaModel(transformers.LlamaConfig(**GROUPED)).eval()
    with torch.no_grad():
        past = llama(input_ids=ids(5), use_cache=True).past_key_values if cache else None
    subject = Subject(llama, tensors_only(llama), "llama", "decoder")
    cap = capture(subject, {"input_ids": ids(4), "past_key_values": past, "use_cache": bool(cache)})
    call: AttentionCall = cap.calls[0]
    assert call.keys == 4 + cache
    assert torch.equal(call.promise.mask.dense(4, 4 + cache), Causal(cache).dense(4, 4 + cache))
    assert all(leaks == 0 and mass < 1e-3 for leaks, mass in accused(cap).values())


@pytest.mark.parametrize(
    ("kind", "argument", "together"), [("gemma3", "token_type_ids", False), ("molmo2", "mm_token_type_ids", True)]
)
def test_two_images_are_a_block_each_or_one(kind, argument, together):
    """Molmo 2 gives all image tokens one block id, Gemma 3 gives each image its own (transformers' create_masks)."""
    module = Plain(True)
    module.config = SimpleNamespace(model_type=kind)
    q = torch.zeros(1, 4, 6, 8)
    call = AttentionCall("", "self", Computed(q, q, 1.0, causal=True))
    claimed = claim(module, call, {argument: torch.tensor([[0, 1, 1, 0, 1, 1]])})
    expected = Causal().dense(6)
    expected[1, 2] = expected[4, 5] = True
    expected[1:3, 4:6] = together
    assert torch.equal(claimed.mask.dense(6, 6), expected) and claimed.source.endswith(f"{kind}, and {argument}")


# -- the check asks the same source ----------------------------------------------------------------------------------
def hf(name: str, **options):
    kind = getattr(transformers, name)
    torch.manual_seed(0)
    return kind(kind.config_class(**options)).eval()


def llava():
    torch.manual_seed(0)
    eye = {"model_type": "clip_vision_model", **EYE}
    make = looking("LlavaForConditionalGeneration", LLAMA, eye, vision_feature_select_strategy="default")
    return make()[0].eval()


CHECKED = [
    ("CLIP text", lambda: hf("CLIPTextModel", **TEXT), "Causal()", "makes a causal mask"),
    ("LLaVA", llava, "Causal()", "is_causal of LlamaAttention is on"),
    ("SigLIP text", lambda: hf("SiglipTextModel", **TEXT), "Bidirectional()", "is_causal of SiglipAttention is off"),
    ("EmbeddingGemma", lambda: hf("Gemma3TextModel", **GROUPED, layer_types=["full_attention"] * 2,
        use_bidirectional_attention=True), "Bidirectional()", "use_bidirectional_attention"),
    ("Gemma 2", lambda: hf("Gemma2Model", **WINDOWS), "Causal() & Window(3, 0) · Causal()", "is_causal of Gemma2"),
]  # fmt: skip


@pytest.mark.parametrize("guessed", ["custom", "encoder", "decoder"])
@pytest.mark.parametrize(("name", "make", "expect", "source"), CHECKED, ids=[c[0] for c in CHECKED])
def test_the_check_promises_what_the_configuration_does(name, make, expect, source, guessed):
    module = make()
    subject = Subject(module, tensors_only(module), name, guessed, family_from="")
    report = check(subject, modes="base", length=LENGTH, dtypes=())
    assert report.ok, str(report)
    assert report.expect == expect and source in report.source and f"promise {expect} ({report.source})" in str(report)


def test_an_embedder_that_runs_causally_is_found():
    module = hf("Gemma3TextModel", **GROUPED, layer_types=["full_attention"] * 2, use_bidirectional_attention=True)
    for layer in module.layers:
        forward = layer.self_attn.forward
        layer.self_attn.is_causal = True
        layer.self_attn.forward = lambda *args, forward=forward, **kwargs: forward(
            *args, **{**kwargs, "attention_mask": None}
        )
    report = check(module, modes="base", length=LENGTH, dtypes=())
    assert not report.ok and "both directions were promised" in str(report)


@pytest.mark.parametrize("name", ["T5EncoderModel", "T5ForConditionalGeneration"])
def test_an_encoder_alone_promises_both_ways(name):
    module = hf(name, d_model=32, d_kv=8, d_ff=32, num_layers=2, num_heads=4, vocab_size=64, decoder_start_token_id=0)
    assert whole(module)[0].mask == (Bidirectional() if name == "T5EncoderModel" else Causal())
