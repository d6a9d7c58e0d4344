"""Linear attention, states and landmarks of other libraries: their weights are what a value at one position does to the
module's own output, or what the recurrence does to one input."""

import sys
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
import transformers
from torch import Tensor, nn

from headwise import anatomy, capture, edits, masks, wrap
from headwise.interp.run.capture import rerun

package = pytest.importorskip("linear_attention_transformer")
linformer = pytest.importorskip("linformer")

HEADS, LENGTH, VOCABULARY = 4, 24, 99
IDS = torch.randint(3, VOCABULARY, (2, LENGTH), generator=torch.Generator().manual_seed(0))
REAL = torch.ones_like(IDS)
REAL[1, 17:] = 0
SIZE = {
    "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": HEADS, "intermediate_size": 48,
    "vocab_size": VOCABULARY,
}  # fmt: skip
NYSTROM = SIZE | {"segment_means_seq_len": LENGTH, "num_landmarks": 6}
STATES = {"hidden_size": 32, "num_hidden_layers": 2, "vocab_size": VOCABULARY, "state_size": 4}
MAMBA2 = STATES | {"num_heads": HEADS, "head_dim": 16, "expand": 2, "n_groups": 2, "chunk_size": 8}
RWKV = {"hidden_size": 32, "num_hidden_layers": 2, "vocab_size": VOCABULARY, "attention_hidden_size": 32}
MINIMAX = SIZE | {
    "num_key_value_heads": 2, "head_dim": 8, "block_size": 8, "num_local_experts": 2, "num_experts_per_tok": 1,
    "layer_types": ["linear_attention", "full_attention"],
}  # fmt: skip
RECURRENT = {"Rwkv": RWKV, "Mamba": STATES, "Mamba2": MAMBA2, "MiniMax": MINIMAX}


def build(name: str, **options) -> nn.Module:
    torch.manual_seed(0)
    module = getattr(transformers, f"{name}Model")(getattr(transformers, f"{name}Config")(**options)).eval()
    for parameter in module.parameters():
        if parameter.ndim > 1:
            nn.init.normal_(parameter, std=0.25)  # attention far from uniform
    return module


def lucid(**options) -> nn.Module:
    torch.manual_seed(0)
    options = {
        "num_tokens": VOCABULARY,
        "dim": 32,
        "depth": 2,
        "max_seq_len": 32,
        "heads": HEADS,
        "dim_head": 8,
    } | options
    return package.LinearAttentionTransformerLM(**options).eval()


def seen(module: nn.Module, kind: str = "decoder", **more):
    named = "x" if type(module).__module__.startswith("lin") else "input_ids"
    cap = capture(wrap(module, kind=kind), {named: IDS, **more})
    assert not cap.unseen and cap.fidelity == 0
    return cap


def all_weights(call) -> Tensor:
    """(B, H, Q, K)."""
    return torch.stack([call.weights(head) for head in range(call.heads)], 1)


def answers(values: nn.Module, output: nn.Module, run, heads: int) -> Tensor:
    """What the input of ``output`` gains by one more in all numbers that ``values`` makes at each position, the mean
    over a head → (B, H, Q, K)."""
    took: list[Tensor] = []
    place = [-1]

    def nudge(_, __, made):
        if place[0] < 0:
            return made
        made = made.clone()
        made[:, place[0]] += 1
        return made

    hooks = [values.register_forward_hook(nudge), output.register_forward_pre_hook(lambda _, x: took.append(x[0]))]
    with torch.no_grad():
        for place[0] in range(-1, LENGTH):
            run()
    for hook in hooks:
        hook.remove()
    gains = torch.stack([each - took[0] for each in took[1:]], -1)  # (B, Q, C, K)
    return gains.unflatten(2, (heads, -1)).mean(3).transpose(1, 2)


@pytest.mark.parametrize("convolution", [5, 65])
def test_nystromformer(convolution):  # which Hugging Face cannot run on padded texts
    module = build("Nystromformer", **NYSTROM, conv_kernel_size=convolution)
    cap = seen(module, "encoder")
    own = module.encoder.layer[0].attention
    wanted = answers(own.self.value, own.output.dense, lambda: module(IDS), HEADS)
    assert torch.allclose(all_weights(cap.calls[0]), wanted, atol=1e-4)
    assert (wanted < -0.01).any() and cap.calls[0].linear


def test_nystromformer_with_a_landmark_a_token_is_softmax_attention():
    cap = seen(build("Nystromformer", **NYSTROM | {"num_landmarks": LENGTH}), "encoder")
    assert {call.seen for call in cap.calls} == {"softmax"}


def test_rwkv_has_a_head_a_channel():
    module = build("Rwkv", **RWKV)
    own = module.blocks[0].attention
    nn.init.normal_(own.time_decay)
    nn.init.normal_(own.time_first)
    cap = seen(module)
    gated: list[Tensor] = []
    hook = own.receptance.register_forward_hook(lambda _, __, out: gated.append(out.sigmoid()))
    wanted = answers(own.value, own.output, lambda: module(IDS), 32)
    hook.remove()
    weights = all_weights(cap.calls[0])
    assert torch.allclose(weights, wanted / gated[0].mT[..., None], atol=1e-4)
    assert torch.allclose(weights.sum(-1), torch.ones(2, 32, LENGTH), atol=1e-5)
    assert cap.calls[0].mask == masks.Causal()


@pytest.mark.parametrize("options", [{}, {"causal": True}, {"causal": True, "blindspot_size": 4}], ids=str)
def test_linear_attention_transformer(options):
    module = lucid(**options)
    cap = seen(module)
    own = module.transformer.layers.layers[0][0].fn
    wanted = answers(own.to_v, own.to_out, lambda: module(IDS), HEADS)
    assert torch.allclose(all_weights(cap.calls[0]), wanted, atol=1e-5)
    if "blindspot_size" in options:
        assert cap.calls[0].mask == masks.Causal() & ~masks.Segments(4)


def test_linear_attention_transformer_with_padding_and_context():
    module, real = lucid(), REAL.bool()
    cap = seen(module, "encoder", input_mask=real)
    weights = all_weights(cap.calls[0])
    assert (weights[1, :, :, 17:] == 0).all() and (weights[1, :, :, :17] > 0).all()


@pytest.mark.parametrize("one", [True, False])
def test_linformer(one):
    torch.manual_seed(0)
    module = linformer.LinformerLM(
        num_tokens=VOCABULARY, dim=32, seq_len=32, depth=2, k=6, heads=HEADS, one_kv_head=one
    ).eval()
    cap = seen(module, "encoder")
    own = module.linformer.net.layers[0][0].fn
    wanted = answers(own.to_v, own.to_out, lambda: module(IDS), HEADS)
    assert torch.allclose(all_weights(cap.calls[0]), wanted, atol=1e-5)
    assert (wanted < 0).any()


def impulses(decays: Tensor, inputs: Tensor, outputs: Tensor) -> Tensor:
    """h ← decay · h + input · x; y = output · h, for an x of one at each position in turn. All (B, H, T, N) → (B, H, Q,
    K)."""
    decays, inputs, outputs = (t.double() for t in (decays, inputs, outputs))
    columns = []
    for key in range(inputs.shape[2]):
        state, column = torch.zeros_like(inputs[:, :, 0]), []
        for t in range(inputs.shape[2]):
            state = decays[:, :, t] * state + inputs[:, :, t] * (t == key)
            column.append((outputs[:, :, t] * state).sum(-1))
        columns.append(torch.stack(column, -1))
    return torch.stack(columns, -1)


def given_to(name: str, module, run) -> dict:
    """The arguments that a function of this module of Hugging Face's was called with first."""
    place, took = sys.modules[module], []
    plain = getattr(place, name)

    def noting(*args, **kwargs):
        took.append(args)
        took.append(kwargs)
        return plain(*args, **kwargs)

    setattr(place, name, noting)
    try:
        run()
    finally:
        setattr(place, name, plain)
    return took[0], took[1]


def test_mamba_is_its_recurrence():
    module = build("Mamba", **STATES)
    (x, step, rate, b, c), more = given_to(
        "mamba_selective_scan", "transformers.models.mamba.modeling_mamba", lambda: module(IDS)
    )
    step = F.softplus(step + more["delta_bias"][:, None])  # (B, C, T)
    decays = torch.exp(step[..., None] * rate[:, None])
    inputs, outputs = step[..., None] * b.mT[:, None], c.mT[:, None].expand_as(decays)
    wanted = impulses(decays, inputs, outputs) + torch.diag_embed(more["D"][:, None].expand(-1, LENGTH))
    call = seen(module).calls[0]
    assert torch.allclose(all_weights(call).double(), wanted, atol=1e-5)
    assert torch.allclose(call.v[..., 0], x, atol=1e-6) and call.mask == masks.Causal() and (wanted < 0).any()


def test_mamba2_is_its_recurrence():
    module = build("Mamba2", **MAMBA2)
    (x, step, rate, b, c), more = given_to(
        "mamba2_chunk_scan", "transformers.models.mamba2.modeling_mamba2", lambda: module(IDS)
    )
    step = F.softplus(step + more["dt_bias"]).transpose(1, 2)  # (B, H, T)
    b, c = (t.repeat_interleave(2, 2).transpose(1, 2) for t in (b, c))  # (B, H, T, N)
    decays = torch.exp(step * rate[:, None])[..., None]
    wanted = impulses(decays, step[..., None] * b, c) + torch.diag_embed(more["D"][:, None].expand(-1, LENGTH))
    call = seen(module).calls[0]
    assert torch.allclose(all_weights(call).double(), wanted, atol=1e-5)
    assert torch.allclose(call.v, x.transpose(1, 2), atol=1e-6)


def test_lightning_is_its_recurrence():
    """Blocks of 8 in a text of 24, against one step after another (Qin et al. 2024, eq. 1)."""
    module = build("MiniMax", **MINIMAX)
    own, took = module.layers[0].self_attn, []
    hook = own.qkv_proj.register_forward_hook(lambda _, __, out: took.append(F.silu(out)))
    module(IDS)
    hook.remove()
    q, k, v = took[0].unflatten(-1, (HEADS, 24)).transpose(1, 2).split(8, -1)
    decay = torch.exp(-own.slope_rate)[None].expand_as(k)
    call, plain = seen(module).calls
    assert torch.allclose(all_weights(call).double(), impulses(decay, k, q), atol=1e-5)
    assert torch.equal(call.v, v) and call.linear and not plain.linear


def test_yoso_tells_the_chances_of_a_collision():
    module = build("Yoso", **SIZE, use_expectation=True)
    call = seen(module, "encoder", attention_mask=REAL).calls[0]
    own = module.encoder.layer[0].attention.self
    x = module.embeddings(IDS)
    q, k = (F.normalize(part(x).unflatten(-1, (HEADS, 8)).transpose(1, 2), dim=-1) for part in (own.query, own.key))
    chances = (1 - torch.acos(q @ k.mT) / torch.pi) ** own.hash_code_len
    weights = all_weights(call)
    assert torch.allclose(weights[0], (chances / chances.sum(-1, keepdim=True))[0], atol=1e-5)
    assert not call.linear


@pytest.mark.parametrize("name", RECURRENT)
def test_a_run_that_goes_on_from_a_state_says_so(name):
    module = build(name, **RECURRENT[name])
    kept = "state" if name == "Rwkv" else "past_key_values" if name == "MiniMax" else "cache_params"
    with torch.no_grad():
        before = module(IDS, use_cache=True)
    state = getattr(before, kept)
    cap = capture(wrap(module, kind="decoder"), {"input_ids": IDS[:, :1], kept: state, "use_cache": True})
    assert {u.reason for u in cap.unseen} and all("summed up" in u.reason for u in cap.unseen)


@pytest.mark.parametrize("name", RECURRENT)
@pytest.mark.parametrize("length", [1, 2, 9])
def test_texts_of_any_length(name, length):
    module = build(name, **RECURRENT[name])
    cap = capture(wrap(module, kind="decoder"), {"input_ids": IDS[:, :length], "use_cache": False})
    assert not cap.unseen and {call.queries for call in cap.calls} == {length}


@pytest.mark.parametrize("name", RECURRENT)
def test_padding_that_shuts_the_gates_is_no_reason_to_refuse(name):
    more = {} if name == "Rwkv" else {"attention_mask": REAL}
    assert len(seen(build(name, **RECURRENT[name]), **more).calls) == 2


SWITCHED = {
    "Nystromformer": (lambda: build("Nystromformer", **NYSTROM), lambda m: m.encoder.layer[1].attention.output.dense),
    "Yoso": (lambda: build("Yoso", **SIZE), lambda m: m.encoder.layer[1].attention.output.dense),
    "Rwkv": (lambda: build("Rwkv", **RWKV), lambda m: m.blocks[1].attention.output),
    "Mamba": (lambda: build("Mamba", **STATES), lambda m: m.layers[1].mixer.out_proj),
    "linear": (lucid, lambda m: m.transformer.layers.layers[1][0].fn.to_out),
}


@pytest.mark.parametrize("name", SWITCHED)
def test_a_head_is_switched_off_as_the_output_projection_would(name):
    make, projection = SWITCHED[name]
    module = make()
    cap = seen(module, "encoder")
    off = [rerun(cap, [edits.ZeroHead(1, 0)]), rerun(cap, [edits.Zero(edits.Pattern(1, 0))])]
    as_it_was = rerun(cap, [edits.Scale(edits.HeadOutput(1, 0), 1.0)])
    weight = projection(module).weight
    with torch.no_grad():
        weight[:, : weight.shape[1] // cap.calls[1].heads] = 0
    wanted = seen(module, "encoder").logits
    assert torch.allclose(as_it_was.logits, cap.logits, atol=1e-4)
    assert not torch.allclose(wanted, cap.logits, atol=1e-3)
    for edited in off:
        assert torch.allclose(edited.logits, wanted, atol=1e-4)


STREAMS = {name: (lambda name=name: build(name, **RECURRENT[name]), 2) for name in ("Rwkv", "Mamba", "Mamba2")}
STREAMS |= {"linear": (lucid, 2), "Nystromformer": (lambda: build("Nystromformer", **NYSTROM), 2)}


@pytest.mark.parametrize("name", STREAMS)
def test_its_heads_are_told_apart_in_the_stream(name):
    make, layers = STREAMS[name]
    module = make()
    found = anatomy(wrap(module, kind="encoder"), {"x" if name == "linear" else "input_ids": IDS})
    assert found.proof.total < 1e-5 and found.proof.heads < 1e-5
    assert sum(write.heads for stream in found.streams for write in stream.writes) == layers


def test_one_key_is_forbidden_where_there_is_no_softmax():
    """The weight is gone, and the others are as they were: nothing makes them sum to one."""
    cap = seen(build("Mamba2", **MAMBA2))
    edited = rerun(cap, [edits.ForbidEdge(0, 9, 4, 1)])
    before, after = cap.calls[0].weights(1), edited.calls[0].weights(1)
    assert after[0, 9, 4] == 0 != before[0, 9, 4]
    before[:, 9, 4] = 0
    assert torch.allclose(after, before, atol=1e-7)


def blocks_of(pairs: Tensor, queries: int, keys: int) -> tuple[Tensor, Tensor, Tensor]:
    return torch.arange(len(pairs))[:, None].expand_as(pairs), (pairs // keys).long(), (pairs % keys).long()


class Kernel(SimpleNamespace):
    """The three operations of MRA's CUDA kernel (kernels-community/mra), written out; blocks lie as [key, query]."""

    @staticmethod
    def mm_to_sparse(queries, keys, pairs):
        batch, query, key = blocks_of(pairs, queries.shape[1], keys.shape[1])
        return keys[batch, key].mT @ queries[batch, query]

    @staticmethod
    def sparse_dense_mm(sparse, pairs, values, queries):
        batch, query, key = blocks_of(pairs, queries, values.shape[1])
        out = values.new_zeros(len(values), queries, *values.shape[2:])
        return out.index_put((batch, query), values[batch, key] @ sparse, accumulate=True)

    @staticmethod
    def index_max(values, pairs, queries, keys):
        query = blocks_of(pairs, queries, keys)[1][:, None].expand_as(values)
        top = values.new_full((len(values), 32, queries), -1e5).scatter_reduce(2, query, values, "amax")
        return top.mT.flatten(1), top.gather(2, query)


@pytest.mark.parametrize("mode", ["full", "sparse"])
@pytest.mark.parametrize("padded", [False, True])
def test_mra_with_its_kernel(mode, padded, monkeypatch):
    monkeypatch.setattr("transformers.models.mra.modeling_mra.mra_cuda_kernel", Kernel())
    module = build("Mra", **SIZE, max_position_embeddings=128, block_per_row=2, approx_mode=mode)
    ids = torch.randint(3, VOCABULARY, (2, 128), generator=torch.Generator().manual_seed(0))
    real = torch.ones_like(ids)
    real[1, 90:] = 0
    cap = capture(wrap(module, kind="encoder"), {"input_ids": ids} | ({"attention_mask": real} if padded else {}))
    assert not cap.unseen and [call.shape for call in cap.calls] == [(2, HEADS, 128, 128)] * 2
    weights = all_weights(cap.calls[0])
    told = weights.sum(-1)
    assert torch.allclose(told[0, 0], torch.ones(128), atol=1e-5) or padded or mode == "sparse"
    if mode == "full" and not padded:
        blocks = weights[0].unflatten(2, (4, 32))  # (H, Q, 4, 32): keys of one coarse block share a weight
        flat = ((blocks.amax(3) - blocks.amin(3)) <= 1e-5 * blocks.amax(3)).unflatten(1, (4, 32))
        assert torch.equal(flat.all(2), flat.any(2)) and flat.all(2).sum((1, 2)).tolist() == [16 - 8] * HEADS


def test_mra_without_its_kernel_says_so():
    cap = capture(
        wrap(build("Mra", **SIZE, max_position_embeddings=64), kind="encoder"), {"input_ids": IDS.repeat(1, 3)[:, :64]}
    )
    assert not cap.calls and all("returns zeros" in u.reason for u in cap.unseen)


def test_heads_of_two_kinds_in_one_module_are_not_told():
    module = lucid(n_local_attn_heads=2, local_attn_window_size=8)
    cap = capture(wrap(module, kind="encoder"), {"x": IDS})
    assert not cap.calls and all("n_local_attn_heads" in u.reason for u in cap.unseen)
