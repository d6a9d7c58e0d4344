"""Does the causal code of public packages keep its mask? The check, and a hand check that knows nothing of it.

    pip install performer-pytorch reformer-pytorch x-transformers …
    python benchmarks/wild.py                 # all that are installed, as a table
    python benchmarks/wild.py performer       # those whose name has this word
    headwise check benchmarks/wild.py:performer

Each function makes one module that its package calls causal, or that forecasts from the past, in a small size with
random weights. The hand check is the plainest there is: in float64, change every input from one on and see whether an
output before it moves. A finding counts only where that moves by more than rounding, over three seeds.
"""

from __future__ import annotations

import inspect
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module, metadata
from pathlib import Path

import torch
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).parents[1]))

WORDS, WIDTH, LENGTH = 64, 32, 32
ROUNDING = 1e-10  # in float64, of the output's scale
LM = {"num_tokens": WORDS, "dim": WIDTH, "depth": 2}
LEAKS = {"future-leak", "outside-attention", "routing", "mask-convention", "layout", "window", "prefix"}
SMALL = {**LM, "heads": 4, "dim_head": 8}


@dataclass(frozen=True)
class Wild:
    """One module of a package: ``make`` returns it, or it and options of the check."""

    package: str  # as pip calls it
    says: str
    make: Callable
    width: int  # of float inputs; 0: it takes ids

    @property
    def name(self) -> str:
        return self.make.__name__


WILD: list[Wild] = []


def wild(package: str, says: str, *, width: int = 0):
    """It takes floats (B, T, ``width``), or token ids (B, T)."""

    def listed(make: Callable) -> Callable:
        WILD.append(Wild(package, says, make, width))
        return make

    return listed


def of(path: str, name: str):
    """A class of a package that may not be installed."""
    return getattr(import_module(path), name)


def on(call: Callable, module: nn.Module) -> nn.Module:
    """A module whose forward is ``call(module, x)``: for those that want more than their input."""

    class On(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = module

        def forward(self, x):
            return call(self.inner, x)

    return On()


# -- efficient attention -----------------------------------------------------------------------------------------------
@wild("performer-pytorch", "PerformerLM(causal=True)")
def performer():
    return of("performer_pytorch", "PerformerLM")(**LM, max_seq_len=64, heads=4, dim_head=8, causal=True)


@wild("performer-pytorch", "PerformerLM(causal=True, generalized_attention=True)")
def performer_relu():
    made = of("performer_pytorch", "PerformerLM")
    return made(**LM, max_seq_len=64, heads=4, dim_head=8, causal=True, generalized_attention=True)


@wild("reformer-pytorch", "ReformerLM(causal=True)")
def reformer():
    made = of("reformer_pytorch", "ReformerLM")
    return made(**LM, max_seq_len=64, heads=4, dim_head=8, bucket_size=8, n_hashes=2, ff_chunks=1, causal=True)


@wild("reformer-pytorch", "ReformerLM(causal=True, use_full_attn=True)")
def reformer_full():
    made = of("reformer_pytorch", "ReformerLM")
    return made(**LM, max_seq_len=64, heads=4, dim_head=8, bucket_size=8, ff_chunks=1, causal=True, use_full_attn=True)


@wild("linear-attention-transformer", "LinearAttentionTransformerLM(causal=True)")
def linear_attention():
    made = of("linear_attention_transformer", "LinearAttentionTransformerLM")
    return made(**LM, max_seq_len=64, heads=4, dim_head=8, causal=True, blindspot_size=1)


@wild("linear-attention-transformer", "LinearAttentionTransformerLM(causal=True, n_local_attn_heads=2)")
def linear_and_local():
    made = of("linear_attention_transformer", "LinearAttentionTransformerLM")
    more = {"n_local_attn_heads": 2, "local_attn_window_size": 8}
    return made(**LM, max_seq_len=64, heads=4, dim_head=8, causal=True, **more)


@wild("local-attention", "LocalTransformer(causal=True)")
def local():
    return of("local_attention", "LocalTransformer")(**SMALL, max_seq_len=64, local_attn_window_size=8, causal=True)


@wild("local-attention", "LocalTransformer(causal=True, use_xpos=True)")
def local_xpos():
    made = of("local_attention", "LocalTransformer")
    return made(**SMALL, max_seq_len=64, local_attn_window_size=8, causal=True, use_xpos=True)


@wild("routing-transformer", "RoutingTransformerLM(causal=True)")
def routing():
    made = of("routing_transformer", "RoutingTransformerLM")
    return made(**LM, max_seq_len=32, heads=4, dim_head=8, window_size=8, causal=True), {"length": 32}


@wild("sinkhorn-transformer", "SinkhornTransformerLM(causal=True)")
def sinkhorn():
    made = of("sinkhorn_transformer", "SinkhornTransformerLM")
    return made(**LM, max_seq_len=32, heads=4, bucket_size=8, causal=True), {"length": 32}


@wild("h-transformer-1d", "HTransformer1D(causal=True)")
def hierarchical_attention():
    return of("h_transformer_1d", "HTransformer1D")(**SMALL, max_seq_len=64, block_size=8, causal=True)


@wild("simple-hierarchical-transformer", "HierarchicalTransformer(hierarchies=(1, 2))")
def hierarchies():
    made = of("simple_hierarchical_transformer", "HierarchicalTransformer")
    return made(**SMALL, seq_len=64, hierarchies=(1, 2), window_sizes=(8, None))


# -- decoders ----------------------------------------------------------------------------------------------------------
def _decoder(**more):
    wrapper, decoder = of("x_transformers", "TransformerWrapper"), of("x_transformers", "Decoder")
    layers = decoder(dim=WIDTH, depth=2, heads=4, attn_dim_head=8, **more)
    return wrapper(num_tokens=WORDS, max_seq_len=64, attn_layers=layers)


@wild("x-transformers", "Decoder(rotary_pos_emb=True)")
def x_rotary():
    return _decoder(rotary_pos_emb=True)


@wild("x-transformers", "Decoder(alibi_pos_bias=True)")
def x_alibi():
    return _decoder(alibi_pos_bias=True, alibi_num_heads=2)


@wild("x-transformers", "Decoder(shift_tokens=1)")
def x_shifted():
    return _decoder(shift_tokens=1)


@wild("x-transformers", "Decoder(attn_pre_talking_heads=True)")
def x_talking():
    return _decoder(attn_pre_talking_heads=True)


@wild("x-transformers", "Decoder(attn_sparse_topk=4)")
def x_topk():
    return _decoder(attn_sparse_topk=4)


@wild("x-transformers", "Decoder(attn_num_mem_kv=4)")
def x_memory():
    return _decoder(attn_num_mem_kv=4)


@wild("palm-rlhf-pytorch", "PaLM()")
def palm():
    return of("palm_rlhf_pytorch", "PaLM")(**SMALL)


@wild("coconut-pytorch", "Transformer()")
def coconut():
    made = of("coconut_pytorch.coconut", "Transformer")(**SMALL)
    return made, {"output": _first_logits}


def _first_logits(answer):
    while isinstance(answer, tuple | list):
        answer = answer[0]
    return answer


@wild("recurrent-memory-transformer-pytorch", "RecurrentMemoryTransformer(causal=True)")
def recurrent_memory():
    made = of("recurrent_memory_transformer_pytorch", "RecurrentMemoryTransformer")
    return made(WIDTH, num_tokens=WORDS, depth=2, num_memory_tokens=4, seq_len=64, heads=4, dim_head=8, causal=True)


@wild("block-recurrent-transformer-pytorch", "BlockRecurrentTransformer()")
def block_recurrent():
    made = of("block_recurrent_transformer_pytorch", "BlockRecurrentTransformer")
    return made(**SMALL, max_seq_len=64, block_width=8, recurrent_layers=(2,))


@wild("MEGABYTE-pytorch", "MEGABYTE()")
def megabyte():
    made = of("MEGABYTE_pytorch", "MEGABYTE")
    return made(num_tokens=WORDS, dim=WIDTH, depth=(1, 1), max_seq_len=(16, 4), heads=4, dim_head=8)


@wild("memorizing-transformers-pytorch", "MemorizingTransformer()")
def memorizing():
    made = of("memorizing_transformers_pytorch", "MemorizingTransformer")
    model = made(**SMALL, memorizing_layers=(), num_retrieved_memories=1)
    return on(lambda inner, x: inner(x, knn_memories=[]), model)


@wild("titans-pytorch", "MemoryAsContextTransformer()")
def titans():
    made = of("titans_pytorch", "MemoryAsContextTransformer")
    return made(**SMALL, segment_len=8, num_persist_mem_tokens=2, num_longterm_mem_tokens=2)


@wild("token-shift-gpt", "TokenShiftGPT()")
def token_shift():
    return of("token_shift_gpt", "TokenShiftGPT")(**LM, max_seq_len=64)


@wild("g-mlp-pytorch", "gMLP(causal=True)")
def gated_mlp():
    return of("g_mlp_pytorch", "gMLP")(**LM, seq_len=32, causal=True), {"length": 32}


@wild("litgpt", "GPT(Config(pythia-like))")
def litgpt():
    config = of("litgpt.config", "Config")
    sizes = {"n_layer": 2, "n_head": 4, "n_embd": WIDTH, "block_size": 64, "padded_vocab_size": WORDS}
    return of("litgpt.model", "GPT")(config(**sizes))


# -- recurrences, scans and convolutions -------------------------------------------------------------------------------
@wild("mega-pytorch", "Mega(causal=True)")
def mega():
    return of("mega_pytorch", "Mega")(**LM, ema_heads=4, attn_dim_qk=8, attn_dim_value=16, causal=True)


@wild("gated-state-spaces-pytorch", "GatedStateSpacesLM()")
def state_spaces():
    return of("gated_state_spaces_pytorch", "GatedStateSpacesLM")(**LM, dss_kernel_N=16, dss_kernel_H=16)


@wild("gated-state-spaces-pytorch", "GatedDsConvLM()")
def long_convolution():
    return of("gated_state_spaces_pytorch", "GatedDsConvLM")(**LM, heads=4, dim_dsconv=16, max_seq_len=64)


@wild("gated-state-spaces-pytorch", "GatedExponentialSmoothingLM()")
def smoothing():
    return of("gated_state_spaces_pytorch", "GatedExponentialSmoothingLM")(**LM, heads=4, dim_mhesa=16)


@wild("minGRU-pytorch", "minGRU()", width=WIDTH)
def min_gru():
    return of("minGRU_pytorch", "minGRU")(WIDTH)


@wild("mambapy", "Mamba(MambaConfig())", width=WIDTH)
def mamba():
    config = of("mambapy.mamba", "MambaConfig")(d_model=WIDTH, n_layers=2)
    return of("mambapy.mamba", "Mamba")(config)


@wild("yet-another-retnet", "RetNetDecoder()", width=WIDTH)
def retnet():
    layer = of("yet_another_retnet.retnet", "RetNetDecoderLayer")(WIDTH, 4, dropout=0.0)
    return of("yet_another_retnet.retnet", "RetNetDecoder")(layer, 2)


@wild("pytorch-tcn", "TCN(causal=True)", width=WIDTH)
def tcn():
    return of("pytorch_tcn", "TCN")(WIDTH, [16, 16], causal=True, dropout=0.0, input_shape="NLC")


@wild("conformer", "ConformerConvModule(causal=True)", width=WIDTH)
def conformer_convolution():
    return of("conformer", "ConformerConvModule")(WIDTH, causal=True, kernel_size=7)


# -- architectures of Hugging Face, from small configurations ----------------------------------------------------------
def _hugging(model: str, **sizes):
    """A model of transformers, "Gpt2LMHead" as class and configuration, and the promise."""
    package = import_module("transformers")
    made = getattr(package, model)
    sizes = {"vocab_size": WORDS, "hidden_size": WIDTH, "num_hidden_layers": 2, "num_attention_heads": 4, **sizes}
    return made(made.config_class(**sizes)), {"expect": "causal"}


@wild("transformers", "GPT2LMHeadModel")
def hf_gpt2():
    return _hugging("GPT2LMHeadModel")


@wild("transformers", "LlamaForCausalLM")
def hf_llama():
    return _hugging("LlamaForCausalLM", intermediate_size=64, num_key_value_heads=2)


@wild("transformers", "BloomForCausalLM")
def hf_bloom():
    return _hugging("BloomForCausalLM")


@wild("transformers", "MambaForCausalLM")
def hf_mamba():
    return _hugging("MambaForCausalLM", state_size=8, time_step_rank=4)


@wild("transformers", "RwkvForCausalLM")
def hf_rwkv():
    return _hugging("RwkvForCausalLM", attention_hidden_size=WIDTH, intermediate_size=64)


@wild("transformers", "BigBirdForCausalLM(is_decoder=True)")
def hf_bigbird():
    return _hugging("BigBirdForCausalLM", is_decoder=True, intermediate_size=64, attention_type="original_full")


@wild("transformers", "ReformerModelWithLMHead(is_decoder=True), local layers")
def hf_reformer_local():
    return _reformer(["local", "local"])


@wild("transformers", "ReformerModelWithLMHead(is_decoder=True), LSH layers")
def hf_reformer_lsh():
    return _reformer(["lsh", "lsh"])


def _reformer(layers: list[str]):
    sizes = {"attention_head_size": 8, "local_attn_chunk_length": 8, "lsh_attn_chunk_length": 8, "num_buckets": 4}
    axes = {"axial_pos_shape": [8, 8], "axial_pos_embds_dim": [16, 16], "max_position_embeddings": 64}
    model, options = _hugging(
        "ReformerModelWithLMHead",
        is_decoder=True,
        attn_layers=layers,
        feed_forward_size=64,
        hash_seed=0,
        **sizes,
        **axes,
    )
    return model, options | {"length": 32}


@wild("transformers", "EncodecModel(use_causal_conv=True).encoder", width=1)
def hf_encodec():
    return _codec("EncodecModel", upsampling_ratios=[2, 2], use_causal_conv=True)


def _codec(model: str, **sizes):
    made = getattr(import_module("transformers"), model)
    config = made.config_class(hidden_size=16, num_filters=4, num_lstm_layers=1, **sizes)
    return on(lambda inner, x: inner(x.transpose(1, 2)).transpose(1, 2), made(config).encoder)


# -- series and traces -------------------------------------------------------------------------------------------------
@wild("darts", "_ResidualBlock of the TCN", width=WIDTH)
def darts_tcn():
    made = of("darts.models.forecasting.tcn_model", "_ResidualBlock")
    sizes = {"num_filters": 8, "kernel_size": 3, "dilation_base": 2, "num_layers": 2, "nr_blocks_below": 0}
    model = made(dropout=0.0, weight_norm=False, input_size=WIDTH, target_size=16, **sizes)
    return on(lambda inner, x: inner(x.transpose(1, 2)).transpose(1, 2), model)


@wild("pytorch-forecasting", "InterpretableMultiHeadAttention", width=WIDTH)
def interpretable_attention():
    path = "pytorch_forecasting.models.temporal_fusion_transformer.sub_modules"
    model = of(path, "InterpretableMultiHeadAttention")(n_head=4, d_model=WIDTH, dropout=0.0)

    def masked(inner, x):
        hidden = torch.ones(x.shape[1], x.shape[1], dtype=torch.bool).triu(1)
        return inner(x, x, x, mask=hidden.expand(len(x), -1, -1))[0]

    return on(masked, model)


@wild("pykt-toolkit", "ATKT(fix=False), as published")
def tracing_attention():
    return _traced(of("pykt.models.atkt", "ATKT")(WORDS, 16, 16, 16, dropout=0.0, fix=False))


@wild("pykt-toolkit", "ATKT(fix=True)")
def tracing_attention_fixed():
    return _traced(of("pykt.models.atkt", "ATKT")(WORDS, 16, 16, 16, dropout=0.0, fix=True))


@wild("pykt-toolkit", "DKT()")
def tracing():
    return _traced(of("pykt.models.dkt", "DKT")(WORDS, 16, dropout=0.0))


@wild("pykt-toolkit", "DKVMN()")
def tracing_memory():
    return _traced(of("pykt.models.dkvmn", "DKVMN")(WORDS, 16, 8, dropout=0.0))


@wild("pykt-toolkit", "AKT()")
def tracing_monotonic():
    made = of("pykt.models.akt", "AKT")
    model = made(WORDS, 0, 16, 1, dropout=0.0, d_ff=32, num_attn_heads=2, final_fc_dim=16)
    return _traced(model)


def _traced(model):
    g = torch.Generator().manual_seed(5)
    skills, answers = (torch.randint(n, (3, LENGTH), generator=g) for n in (WORDS, 2))
    names = list(inspect.signature(model.forward).parameters)[:2]
    return model, {"inputs": dict(zip(names, (skills, answers), strict=True))}


# -- checking ----------------------------------------------------------------------------------------------------------
def made(one: Wild) -> tuple[nn.Module, dict]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        answer = one.make()
    model, options = answer if isinstance(answer, tuple) else (answer, {})
    return model.eval(), options


def by_hand(one: Wild) -> tuple[float, str]:
    """(how far an output moves with inputs after it, of the outputs' scale; the dtype it was measured in)."""
    for dtype in (torch.float64, torch.float32):
        model, options = made(one)
        try:
            with torch.no_grad():
                moved = max(_moved(model.to(dtype), options, one.width, seed, dtype) for seed in range(3))
            return moved, str(dtype).removeprefix("torch.")
        except RuntimeError:  # it makes float32 of its own: measured in that
            if dtype == torch.float32:
                raise
    raise AssertionError


def _moved(model: nn.Module, options: dict, width: int, seed: int, dtype: torch.dtype) -> float:
    g = torch.Generator().manual_seed(seed)
    given = options.get("inputs")
    shape = (2, LENGTH, width) if width else (2, LENGTH)

    def draw() -> list[Tensor]:
        if given is not None:
            return [torch.randint(int(t.max()) + 1, t[:2].shape, generator=g) for t in given.values()]
        return [torch.randn(shape, generator=g, dtype=dtype) if width else torch.randint(1, WORDS, shape, generator=g)]

    def run(xs: list[Tensor]) -> Tensor:
        torch.manual_seed(1)  # random features and hashes are the same in every run
        out = model(*xs)
        while not isinstance(out, Tensor):
            out = out["logits"] if isinstance(out, dict) else out[0]
        return out

    xs, others = draw(), draw()
    base, worst = run(xs), 0.0
    for cut in range(1, LENGTH):
        changed = [torch.cat([x[:, :cut], other[:, cut:]], 1) for x, other in zip(xs, others, strict=True)]
        held = cut * base.shape[1] // LENGTH  # fewer outputs than inputs: those whose last input is before the cut
        if held:
            worst = max(worst, float((run(changed) - base)[:, :held].abs().max() / base.abs().max()))
    return worst


def row(one: Wild) -> str:
    from headwise import check

    try:
        version = metadata.version(one.package)
        model, options = made(one)
    except (ImportError, metadata.PackageNotFoundError) as error:
        return f"| {one.package} | `{one.says}` | not installed ({error}) | | |"
    start = time.perf_counter()
    report = check(model, **{"expect": "causal", "budget": 120, **options})
    took = time.perf_counter() - start
    size, dtype = by_hand(one)
    leaks = size > (ROUNDING if dtype == "float64" else 1e-4)
    said = "; ".join(f"{f.cls}: {f.where}" for f in report.findings) or report.verdict
    found = any(f.cls in LEAKS and f.probe != "B" for f in report.findings)  # B: under padding, another question
    agree = "the same" if leaks == found else "ANOTHER VERDICT"
    measured = f"moves by {size:.1g}" if leaks else "holds"
    return (
        f"| {one.package} {version} | `{one.says}` | {said} | {measured} ({dtype}), {agree} "
        f"| `check benchmarks/wild.py:{one.name}` {took:.0f} s |"
    )


def main() -> None:
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    print("| package | module | the check says | by hand | command |\n|---|---|---|---|---|")
    for one in WILD:
        if not sys.argv[1:] or any(word in one.name for word in sys.argv[1:]):
            try:
                print(row(one), flush=True)
            except Exception as error:  # a package may be broken for this torch
                print(
                    f"| {one.package} | `{one.says}` | raised {type(error).__name__}: {str(error)[:150]} | | |",
                    flush=True,
                )


if __name__ == "__main__":
    main()
