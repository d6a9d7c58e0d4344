"""flash-linear-attention: why its layers are not told."""

from __future__ import annotations

from torch import nn

from headwise.interp.attention.watch import Given

# by file of fla.layers
LAYERS = {
    "abc": "ABCAttention",
    "based": "BasedLinearAttention",
    "delta_net": "DeltaNet",
    "forgetting_attn": "ForgettingAttention",
    "gated_deltanet": "GatedDeltaNet",
    "gated_deltaproduct": "GatedDeltaProduct",
    "gla": "GatedLinearAttention",
    "gsa": "GatedSlotAttention",
    "hgrn": "HGRNAttention",
    "hgrn2": "HGRN2Attention",
    "kda": "KimiDeltaAttention",
    "lightnet": "LightNetAttention",
    "linear_attn": "LinearAttention",
    "mamba": "Mamba",
    "mamba2": "Mamba2",
    "multiscale_retention": "MultiScaleRetention",
    "rebased": "ReBasedLinearAttention",
    "rwkv6": "RWKV6Attention",
    "rwkv7": "RWKV7Attention",
}
FUSED = (
    "flash-linear-attention computes it in Triton kernels, whose results go on into a fused norm without being seen: "
    "no weights could be held against its output, so none are told"
)


class Fused:
    """Knows that there is nothing to be known."""

    keeps = ()

    def applies(self, module: nn.Module) -> bool:
        return True

    def __call__(self, module: nn.Module, given: Given) -> str:
        return FUSED


WATCHER = Fused()
