"""Weights as packages carry them → folders as Hugging Face's ``save_pretrained`` writes them.

Every function takes ``package``, the folder of an unzipped archive, and ``folder``, which it makes. It reads data only:
no code of a package is run and no pickle is opened.
"""

from headwise.models.sources.conversions.bart import bart_phonemes
from headwise.models.sources.conversions.dinov2 import dinov2_small
from headwise.models.sources.conversions.plain import minilm_l6, smollm2_135m, splade_tiny
from headwise.models.sources.conversions.whisper import whisper_tiny_en

__all__ = ["bart_phonemes", "dinov2_small", "minilm_l6", "smollm2_135m", "splade_tiny", "whisper_tiny_en"]
