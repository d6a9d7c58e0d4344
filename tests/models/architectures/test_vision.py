"""The Vision Transformer against Hugging Face's ViT."""

from dataclasses import replace

import pytest
import torch
from transformers import ViTConfig, ViTForImageClassification

from headwise import capture
from headwise.models import wrap
from headwise.models.architectures.vision import VisionConfig, VisionTransformer

CONFIG = VisionConfig(image=12, patch=4, channels=2, layers=2, heads=3, width=12, classes=("a", "b", "c"))
BLOCK_PARTS = {  # of ViT → of ours
    "attention.q_proj": "attention.query",
    "attention.k_proj": "attention.key",
    "attention.v_proj": "attention.value",
    "attention.o_proj": "attention.output",
    "layernorm_before": "attention_norm",
    "layernorm_after": "mlp_norm",
    "mlp.fc1": "mlp.expand",
    "mlp.fc2": "mlp.contract",
}


@pytest.fixture(scope="module")
def pair():
    """(ours, Hugging Face's with the same weights), large enough that attention is far from uniform."""
    torch.manual_seed(0)
    ours = VisionTransformer(CONFIG).eval().requires_grad_(False)
    for parameter in ours.parameters():
        torch.nn.init.normal_(parameter, std=0.7)
    config = ViTConfig(
        hidden_size=12,
        num_hidden_layers=2,
        num_attention_heads=3,
        intermediate_size=48,
        image_size=12,
        patch_size=4,
        num_channels=2,
        num_labels=3,
        layer_norm_eps=1e-12,
        hidden_act="gelu",
        attn_implementation="eager",
    )
    theirs = ViTForImageClassification(config).eval()
    names = {
        "vit.embeddings.patch_embeddings.projection": "patch_embedding",
        "vit.layernorm": "final_norm",
        "classifier": "classifier",
    }
    for layer in range(CONFIG.layers):
        names |= {f"vit.layers.{layer}.{source}": f"blocks.{layer}.{target}" for source, target in BLOCK_PARTS.items()}
    weights = {
        f"{source}.{key}": value
        for source, target in names.items()
        for key, value in ours.get_submodule(target).state_dict().items()
    }
    weights["vit.embeddings.cls_token"] = ours.class_token
    weights["vit.embeddings.position_embeddings"] = ours.position_embedding
    theirs.load_state_dict(weights)
    return ours, theirs


@pytest.fixture
def pictures():
    return torch.rand(2, 2, 12, 12, generator=torch.Generator().manual_seed(3))


@torch.no_grad()
def test_equals_vit(pair, pictures):
    ours, theirs = pair
    torch.testing.assert_close(ours(pictures), theirs(pictures).logits, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_every_head_equals_vits(pair, pictures):
    ours, theirs = pair
    expected = theirs(pictures, output_attentions=True).attentions
    run = capture(wrap(ours, kind="vision"), {"pixel_values": pictures})
    assert [call.shape for call in run.calls] == [(2, 3, 10, 10)] * 2 and not run.unseen  # [CLS] and 3 × 3 patches
    for call, weights in zip(run.calls, expected, strict=True):
        for head in range(CONFIG.heads):
            torch.testing.assert_close(call.weights(head), weights[:, head], atol=1e-5, rtol=1e-5)
    assert max(weights.max() for weights in expected) > 0.5  # the comparison is not one of uniform rows


def test_patches_are_read_row_by_row(pair):
    """Position 1 + 3·row + column holds the patch of that row and column."""
    module, seen = pair[0], []
    hook = module.blocks[0].register_forward_pre_hook(lambda block, args: seen.append(args[0][0]))
    try:
        blank = torch.zeros(1, 2, 12, 12)
        module(blank)
        for row in range(3):
            for column in range(3):
                marked = blank.clone()
                marked[..., 4 * row : 4 * row + 4, 4 * column : 4 * column + 4] = 1
                module(marked)
                changed = (seen[-1] != seen[0]).any(1).nonzero().flatten().tolist()
                assert changed == [1 + 3 * row + column]
    finally:
        hook.remove()


def test_wrong_shapes_are_named(pair):
    with pytest.raises(ValueError, match=r"pixel_values should be \(B, 2, 12, 12\), got \(1, 1, 12, 12\)"):
        pair[0](torch.zeros(1, 1, 12, 12))
    with pytest.raises(ValueError, match="patches of 5 do not tile an image of 12"):
        VisionTransformer(replace(CONFIG, patch=5))
