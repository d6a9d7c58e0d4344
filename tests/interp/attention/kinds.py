"""Tiny random models of many kinds, each with what its attention should see and a word of who says so."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import transformers as tf
from torch import Tensor, nn

from headwise.interp.masks import Bidirectional, Causal, Dense, Mask, Prefix

FREE, CAUSAL = Bidirectional(), Causal()
LENGTH = 9
IMAGE = 63  # the id of an image token

TEXT = {
    "hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "vocab_size": 64,
    "max_position_embeddings": 32, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
GROUPED = TEXT | {"num_key_value_heads": 2, "head_dim": 8}
WINDOWS = GROUPED | {"sliding_window": 4, "layer_types": ["sliding_attention", "full_attention"]}
GPT = {"n_embd": 32, "n_layer": 2, "n_head": 4, "vocab_size": 64, "n_positions": 32, "n_inner": 32}
PAIR = {
    "d_model": 32, "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 4, "decoder_attention_heads": 4,
    "encoder_ffn_dim": 32, "decoder_ffn_dim": 32, "vocab_size": 64, "pad_token_id": 0, "bos_token_id": 1,
    "eos_token_id": 2, "decoder_start_token_id": 1, "max_position_embeddings": 32,
}  # fmt: skip
T5 = {
    "d_model": 32, "d_kv": 8, "d_ff": 32, "num_layers": 2, "num_heads": 4, "vocab_size": 64, "decoder_start_token_id": 0
}  # fmt: skip
EYE = {k: TEXT[k] for k in ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")}
EYE |= {"image_size": 8, "patch_size": 4}
SPEECH = {
    "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 32, "vocab_size": 32,
    "conv_dim": (16, 16), "conv_kernel": (4, 4), "conv_stride": (4, 4), "num_feat_extract_layers": 2,
    "num_conv_pos_embeddings": 4, "num_conv_pos_embedding_groups": 2,
}  # fmt: skip


@dataclass(frozen=True)
class Kind:
    """``make`` → (module, its keyword arguments) · ``claims``: stack → (mask, a word of its source) · ``forgets``: the
    path of an attention whose forgotten mask must be noticed, "" where nothing forbids anything."""

    name: str
    make: Callable[[], tuple[nn.Module, dict]]
    claims: dict[str, tuple[Mask | None, str]]
    forgets: str = ""
    said: str = "custom"


def ids(length: int = LENGTH) -> Tensor:
    return torch.randint(3, 60, (1, length), generator=torch.Generator().manual_seed(length))


def made(name: str, options: dict, **inputs) -> Callable[[], tuple[nn.Module, dict]]:
    """``name`` is a class; its configuration's comes from its config_class."""

    def make():
        kind = getattr(tf, name)
        return kind(kind.config_class(**options)), inputs or {"input_ids": ids()}

    return make


def pair(name: str, options: dict) -> Callable[[], tuple[nn.Module, dict]]:
    return made(name, options, input_ids=ids(), decoder_input_ids=ids(7))


def picture(name: str, options: dict) -> Callable[[], tuple[nn.Module, dict]]:
    return made(
        name, options, pixel_values=torch.randn(1, 3, options.get("image_size", 8), options.get("image_size", 8))
    )


def looking(name: str, text, eye, tokens: int = 4, **more) -> Callable[[], tuple[nn.Module, dict]]:
    """A vision–language model given a few words, an image of ``tokens`` tokens, and words again."""

    def make():
        kind = getattr(tf, name)
        options = {k: v for k, v in more.items() if k not in ("types", "pixels", "inputs")}
        config = kind.config_class(text_config=text, vision_config=eye, image_token_id=IMAGE, **options)
        words = torch.cat([ids(3), torch.full((1, tokens), IMAGE), ids(4)], 1)
        inputs = {"input_ids": words, "pixel_values": more.get("pixels", torch.randn(1, 3, 8, 8))}
        if "types" in more:
            inputs["token_type_ids"] = more["types"](words)
        return kind(config), inputs | more.get("inputs", {})

    return make


# -- made by hand --------------------------------------------------------------------------------------------------
class ByHand(nn.Module):
    """Causal self-attention as in nanoGPT: its mask is a buffer."""

    def __init__(self):
        super().__init__()
        self.qkv = nn.Linear(32, 96)
        self.register_buffer("bias", torch.ones(16, 16).tril().view(1, 1, 16, 16))

    def forward(self, x):
        q, k, v = self.qkv(x).unflatten(-1, (3, 4, 8)).permute(2, 0, 3, 1, 4)
        n = x.shape[1]
        scores = (q @ k.mT / 8**0.5).masked_fill(self.bias[:, :, :n, :n] == 0, float("-inf"))
        return (scores.softmax(-1) @ v).transpose(1, 2).flatten(2)


class Told(nn.Module):
    """Self-attention that has a flag of its own."""

    def __init__(self, is_causal: bool):
        super().__init__()
        self.qkv, self.is_causal = nn.Linear(32, 96), is_causal

    def forward(self, x):
        q, k, v = self.qkv(x).unflatten(-1, (3, 4, 8)).permute(2, 0, 3, 1, 4)
        out = nn.functional.scaled_dot_product_attention(q, k, v, is_causal=self.is_causal)
        return out.transpose(1, 2).flatten(2)


class Plain(Told):
    """The same, which says nothing of itself."""

    def __init__(self, causal: bool):
        super().__init__(causal)
        self.looks_back = self.__dict__.pop("is_causal")

    def forward(self, x):
        q, k, v = self.qkv(x).unflatten(-1, (3, 4, 8)).permute(2, 0, 3, 1, 4)
        out = nn.functional.scaled_dot_product_attention(q, k, v, is_causal=self.looks_back)
        return out.transpose(1, 2).flatten(2)


class TwoLayers(nn.Module):
    def __init__(self, attention: Callable[[], nn.Module]):
        super().__init__()
        self.layers = nn.ModuleList(attention() for _ in range(2))

    def forward(self, x):
        for layer in self.layers:
            x = x + layer(x)
        return x


class TextTower(nn.Module):
    """As OpenCLIP's: the mask is a buffer of the tower, given to nn.MultiheadAttention in each block."""

    def __init__(self, length: int = LENGTH):
        super().__init__()
        self.token_embedding = nn.Embedding(64, 32)
        self.blocks = nn.ModuleList(nn.MultiheadAttention(32, 4, batch_first=True) for _ in range(2))
        self.register_buffer("attn_mask", torch.full((length, length), float("-inf")).triu(1))

    def forward(self, text):
        x = self.token_embedding(text)
        for attention in self.blocks:
            x = x + attention(x, x, x, attn_mask=self.attn_mask, need_weights=False)[0]
        return x


def by_hand(attention: Callable[[], nn.Module]) -> Callable[[], tuple[nn.Module, dict]]:
    return lambda: (TwoLayers(attention), {"x": torch.randn(1, LENGTH, 32)})


# -- the table -----------------------------------------------------------------------------------------------------
def one(name, make, mask, source, stack="self", forgets="", said="custom"):
    return Kind(name, make, {stack: (mask, source)}, forgets, said)


def both(name, make, source, forgets, encoder="encoder"):
    claims = {encoder: (FREE, ""), "decoder": (CAUSAL, source), "cross": (FREE, "another sequence")}
    return Kind(name, make, claims, forgets)


LLAMA = {"model_type": "llama", **GROUPED}
CLIP_EYE = {"model_type": "clip_vision_model", **EYE}
SIGLIP_EYE = {"model_type": "siglip_vision_model", **EYE, "projection_dim": 32}
GEMMA3 = {"model_type": "gemma3_text", **WINDOWS}
FLAG = "is_causal of"
IN_LLAMA = "model.layers.1.self_attn"


def prefix(words: Tensor) -> Tensor:
    """PaliGemma: 0 is the image and the question, 1 the answer."""
    return (torch.arange(words.shape[1])[None] >= words.shape[1] - 3).long()


def square(rows: str) -> Dense:
    """A mask as it is drawn, one word a row."""
    return Dense(torch.tensor([[cell == "■" for cell in row] for row in rows.split()]))


IMAGES = square("""
    ■⬚⬚⬚⬚⬚⬚⬚⬚⬚⬚ ■■⬚⬚⬚⬚⬚⬚⬚⬚⬚ ■■■⬚⬚⬚⬚⬚⬚⬚⬚ ■■■■■■■⬚⬚⬚⬚ ■■■■■■■⬚⬚⬚⬚ ■■■■■■■⬚⬚⬚⬚ ■■■■■■■⬚⬚⬚⬚
    ■■■■■■■■⬚⬚⬚ ■■■■■■■■■⬚⬚ ■■■■■■■■■■⬚ ■■■■■■■■■■■
""")  # three words, an image of four tokens, four words

QUESTION = Prefix(8)


def qwen_eye() -> dict:
    sizes = {"depth": 2, "embed_dim": 32, "hidden_size": 32, "num_heads": 4, "mlp_ratio": 1, "patch_size": 4}
    return {"model_type": "qwen2_vl_vision", "spatial_merge_size": 2, "temporal_patch_size": 2, **sizes}


QWEN = {
    "model_type": "qwen2_vl_text",
    **GROUPED,
    "rope_parameters": {"rope_type": "default", "mrope_section": [1, 1, 2]},
}
QWEN_IMAGE = {
    "image_grid_thw": torch.tensor([[1, 4, 4]]),
    "mm_token_type_ids": torch.tensor([[0] * 3 + [1] * 4 + [0] * 4]),
}
DETR = {
    "d_model": 32, "encoder_layers": 1, "decoder_layers": 2, "encoder_attention_heads": 4, "decoder_attention_heads": 4,
    "encoder_ffn_dim": 32, "decoder_ffn_dim": 32, "num_queries": 6, "use_timm_backbone": False, "backbone": None,
    "use_pretrained_backbone": False,
    "backbone_config": {"model_type": "resnet", "embedding_size": 8, "hidden_sizes": [8, 8], "depths": [1, 1],
                        "out_features": ["stage2"]},
}  # fmt: skip

KINDS = (
    # decoders
    one("Llama", made("LlamaForCausalLM", GROUPED), CAUSAL, FLAG, forgets=IN_LLAMA),
    one("Mistral", made("MistralForCausalLM", GROUPED | {"sliding_window": 4}), CAUSAL, FLAG, forgets=IN_LLAMA),
    one("Gemma 2", made("Gemma2ForCausalLM", WINDOWS), CAUSAL, FLAG, forgets=IN_LLAMA),
    one("GPT-2", made("GPT2LMHeadModel", GPT), CAUSAL, FLAG, forgets="transformer.h.0.attn"),
    one("GPT-NeoX", made("GPTNeoXForCausalLM", TEXT), CAUSAL, FLAG, forgets="gpt_neox.layers.1.attention"),
    one("Bloom", made("BloomForCausalLM", GPT | {"hidden_size": 32}), CAUSAL, "BloomModel makes a causal mask",
        forgets="transformer.h.1.self_attention"),
    one("OpenAI GPT", made("OpenAIGPTLMHeadModel", GPT), CAUSAL, "its buffer 'bias'", forgets="transformer.h.0.attn"),
    one("BERT that decodes", made("BertLMHeadModel", TEXT | {"is_decoder": True}), CAUSAL, "is_decoder", "encoder",
        "bert.encoder.layer.1.attention.self"),
    one("BertGeneration that decodes", made("BertGenerationDecoder", TEXT | {"is_decoder": True}), CAUSAL, "is_decoder",
        "encoder", "bert.encoder.layer.0.attention.self"),
    # both ways
    one("BERT", made("BertModel", TEXT), FREE, FLAG, "encoder"),
    one("RoBERTa", made("RobertaForMaskedLM", TEXT), FREE, FLAG, "encoder"),
    one("RoFormer", made("RoFormerModel", TEXT), FREE, "is_decoder is off", "encoder"),
    one("ModernBERT", made("ModernBertModel", TEXT | {"local_attention": 4, "cls_token_id": 1, "sep_token_id": 2}),
        FREE, FLAG),
    one("BertGeneration", made("BertGenerationEncoder", TEXT), FREE, FLAG, "encoder"),
    one("DeBERTa", made("DebertaModel", TEXT | {"relative_attention": True, "pos_att_type": ["p2c", "c2p"]}), None,
        "nothing says", "encoder"),
    one("XLNet", made("XLNetModel", {"d_model": 32, "n_layer": 2, "n_head": 4, "d_inner": 32, "vocab_size": 64}), FREE,
        "attn_type is 'bi'"),
    one("EmbeddingGemma", made("Gemma3TextModel", WINDOWS | {"use_bidirectional_attention": True}), FREE,
        "use_bidirectional_attention", "decoder", said="decoder"),
    one("Llama told is_causal=False", made("LlamaModel", GROUPED | {"is_causal": False}), FREE, "is_causal is off",
        "decoder", said="decoder"),
    one("CLIP text", made("CLIPTextModel", TEXT), CAUSAL, "makes a causal mask", "encoder",
        "encoder.layers.1.self_attn"),
    one("SigLIP text", made("SiglipTextModel", TEXT), FREE, FLAG, "encoder", said="decoder"),
    # pairs
    both("T5", pair("T5ForConditionalGeneration", T5), "is_decoder", "decoder.block.1.layer.0.SelfAttention"),
    one("T5 encoder", made("T5EncoderModel", T5), FREE, FLAG, "encoder", said="encoder-decoder"),
    both("BART", pair("BartModel", PAIR), FLAG, "decoder.layers.1.self_attn"),
    both("Marian", pair("MarianModel", PAIR), FLAG, "decoder.layers.0.self_attn"),
    Kind("PegasusX", pair("PegasusXModel", PAIR | {"num_global_tokens": 2, "block_size": 4}), {
        "decoder": (CAUSAL, "PegasusXDecoder makes a causal mask"), "cross": (FREE, "another sequence")},
        "decoder.layers.1.self_attn"),
    # pictures
    one("ViT", picture("ViTModel", EYE), FREE, FLAG),
    one("CLIP vision", picture("CLIPVisionModel", EYE), FREE, FLAG, "encoder"),
    one("Swin", picture("SwinModel", {"image_size": 16, "patch_size": 4, "embed_dim": 8, "depths": [1, 1],
        "num_heads": [2, 4], "window_size": 2}), FREE, FLAG, "encoder"),
    Kind("DETR", picture("DetrModel", DETR | {"image_size": 64}), {
        "encoder": (FREE, ""), "decoder": (FREE, FLAG), "cross": (FREE, "another sequence")}, said="encoder-decoder"),
    # pictures and words
    Kind("LLaVA", looking("LlavaForConditionalGeneration", LLAMA, CLIP_EYE, vision_feature_select_strategy="default"), {
        "vision_tower.encoder": (FREE, FLAG), "decoder": (CAUSAL, FLAG)},
        "model.language_model.layers.1.self_attn", "decoder"),
    Kind("Gemma 3", looking("Gemma3ForConditionalGeneration", GEMMA3, SIGLIP_EYE, 4, mm_tokens_per_image=4,
        types=lambda words: (words == IMAGE).long()), {
        "vision_tower.encoder": (FREE, FLAG), "cross": (FREE, "another sequence"),
        "decoder": (IMAGES, "gemma3, and token_type_ids")},
        "model.language_model.layers.1.self_attn", "decoder"),
    Kind("PaliGemma", looking("PaliGemmaForConditionalGeneration", {"model_type": "gemma", **GROUPED}, SIGLIP_EYE,
        image_token_index=IMAGE, projection_dim=32, types=prefix), {
        "vision_tower.encoder": (FREE, FLAG), "cross": (FREE, "another sequence"),
        "decoder": (QUESTION, "paligemma, and token_type_ids")},
        "model.language_model.layers.1.self_attn", "decoder"),
    Kind("Qwen2-VL", looking("Qwen2VLForConditionalGeneration", QWEN, qwen_eye(), pixels=torch.randn(16, 96),
        inputs=QWEN_IMAGE), {"visual": (FREE, FLAG), "decoder": (CAUSAL, FLAG)},
        "model.language_model.layers.1.self_attn", "decoder"),
    Kind("SmolVLM", looking("SmolVLMForConditionalGeneration", LLAMA, {"model_type": "smolvlm_vision", **EYE}, 1,
        scale_factor=2, pixels=torch.randn(1, 1, 3, 8, 8)), {
        "vision.encoder": (FREE, FLAG), "text": (CAUSAL, FLAG)}, "model.text_model.layers.0.self_attn", "decoder"),
    # sound
    both("Whisper", made("WhisperModel", PAIR | {"num_mel_bins": 8, "max_source_positions": 10},
         input_features=torch.randn(1, 8, 20), decoder_input_ids=ids(7)), FLAG, "decoder.layers.1.self_attn"),
    one("wav2vec 2.0", made("Wav2Vec2Model", SPEECH, input_values=torch.randn(1, 400)), FREE, FLAG, "encoder"),
    # made by hand
    one("by hand, a buffer", by_hand(ByHand), CAUSAL, "its buffer 'bias'", forgets="layers.1"),
    one("by hand, a flag", by_hand(lambda: Told(True)), CAUSAL, "is_causal of Told is on", forgets="layers.0"),
    one("by hand, free by its flag", by_hand(lambda: Told(False)), FREE, "is_causal of Told is off"),
    one("by hand, silent", by_hand(lambda: Plain(False)), None, "nothing says"),
    one("by hand, the user says decoder", by_hand(lambda: Plain(True)), CAUSAL, "you said: decoder", "decoder",
        "layers.1", "decoder"),
    one("as OpenCLIP's text tower", lambda: (TextTower(), {"text": ids()}), CAUSAL, "its buffer 'attn_mask'",
        forgets="blocks.1"),
)  # fmt: skip
