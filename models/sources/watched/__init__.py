"""Attention of other people's libraries that cuts its matrix up: one file a library or a mechanism.

A watcher tells the call of one class of modules (see ``headwise.interp.attention.watch``). Classes are known by their
dotted names, so that no library is imported to know them.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module

from torch import nn

from headwise.interp.attention.watch import Watcher
from headwise.models.sources.watched.fla import LAYERS

# a class, by the module it is defined in and its name → the file here that knows it, and the watcher in it
KNOWN: dict[str, tuple[str, str]] = {
    "transformers.models.longformer.modeling_longformer.LongformerSelfAttention": ("longformer", "WATCHER"),
    "transformers.models.led.modeling_led.LEDEncoderSelfAttention": ("longformer", "WATCHER"),
    "transformers.models.big_bird.modeling_big_bird.BigBirdBlockSparseAttention": ("bigbird", "WATCHER"),
    "transformers.models.longt5.modeling_longt5.LongT5LocalAttention": ("longt5", "WATCHER"),
    "transformers.models.longt5.modeling_longt5.LongT5TransientGlobalAttention": ("longt5", "WATCHER"),
    "transformers.models.reformer.modeling_reformer.LSHSelfAttention": ("reformer", "HASHED"),
    "transformers.models.reformer.modeling_reformer.LocalSelfAttention": ("reformer", "LOCAL"),
    "reformer_pytorch.reformer_pytorch.LSHSelfAttention": ("reformer", "SHARED"),
    "performer_pytorch.performer_pytorch.FastAttention": ("performer", "WATCHER"),
    "local_attention.local_attention.LocalAttention": ("local_attention", "WATCHER"),
    "transformers.models.nystromformer.modeling_nystromformer.NystromformerSelfAttention": ("nystrom", "WATCHER"),
    "transformers.models.yoso.modeling_yoso.YosoSelfAttention": ("yoso", "WATCHER"),
    "transformers.models.mra.modeling_mra.MraSelfAttention": ("mra", "WATCHER"),
    "transformers.models.rwkv.modeling_rwkv.RwkvSelfAttention": ("rwkv", "WATCHER"),
    "transformers.models.mamba.modeling_mamba.MambaMixer": ("mamba", "MAMBA"),
    "transformers.models.mamba2.modeling_mamba2.Mamba2Mixer": ("mamba", "MAMBA2"),
    "transformers.models.minimax.modeling_minimax.MiniMaxLightningAttention": ("lightning", "WATCHER"),
    "linear_attention_transformer.linear_attention_transformer.SelfAttention": ("linear_transformer", "LINEAR"),
    "linformer.linformer.LinformerSelfAttention": ("linear_transformer", "LINFORMER"),
    **{f"fla.layers.{file}.{name}": ("fla", "WATCHER") for file, name in LAYERS.items()},
}


def watchers_of(module: nn.Module) -> Mapping[str, Watcher]:
    """The watchers of the classes that ``module`` is made of, by the classes' dotted names."""
    kinds = {kind for part in module.modules() for kind in type(part).__mro__}
    names = {f"{kind.__module__}.{kind.__qualname__}" for kind in kinds} & KNOWN.keys()
    return {name: getattr(import_module(f"{__name__}.{KNOWN[name][0]}"), KNOWN[name][1]) for name in names}
