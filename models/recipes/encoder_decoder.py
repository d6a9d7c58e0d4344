"""tiny-encoder-decoder: the original transformer, from English spelling to phonemes."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import asdict
from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor

from headwise.interp.run.capture import capture
from headwise.models import wrap
from headwise.models.architectures.encoder_decoder import EncoderDecoder, EncoderDecoderConfig
from headwise.models.recipes.data import WORDS, character_tokenizer, load_words
from headwise.models.recipes.training import Recipe, Training
from headwise.models.sources.bundled import load_bundled

START, END, PAD = "<s>", "</s>", "<pad>"
RECIPE = Recipe(steps=2400, warmup=100, matrix_lr=0.01, other_lr=0.002, weight_decay=0.05, bfloat16=False)
WORDS_PER_STEP = 384
SIZE = {"layers": 3, "heads": 4, "width": 128, "context": 64, "dropout": 0.1}
CARD = """\
# {name}

The original transformer (Vaswani et al. 2017) in small: {config[layers]} + {config[layers]} layers ×
{config[heads]} heads, width {config[width]}, {parameters:,} parameters, post-LN, sinusoidal positions. It reads
the spelling of an English word, a letter a token, and writes its pronunciation, a phoneme a token; its
cross-attention is an alignment of sounds and letters that a person can read.

**Data.** {source}: {about}; {licence}. Lower-case words with one pronunciation each. One word in twenty, by the
sha256 of its spelling, is held out; a held-out word may be an inflection of one that was learned. Phonemes are
Misaki's: one letter a sound, A I O W Y for the diphthongs of day, my, go, how and boy, ˈ and ˌ before the stressed
vowels.

**Training.** `headwise train {name}`: {recipe.steps:,} steps of {words} words of similar length, seed
{recipe.seed}, {minutes:.0f} minutes on one CPU core beside other work. Muon for the hidden matrices, AdamW for the
rest, dropout {config[dropout]}, linear decay to zero.

**Measured** by `headwise evaluate {name}` on the held-out words:

```
{report}
```

The baseline is a joint-sequence table: each training word is cut into letter–phoneme chunks by the alignment
described below, and a held-out word is spelled out by the longest known chunks with their commonest sounds (as in
table look-up with back-off).

**The alignment measured against** knows nothing of the model: a hidden Markov model whose states are letters and
which never goes back (Vogel et al. 1996), trained on a quarter of the training pairs by expectation maximisation
in its hard form. It can take a silent letter for a sounded one beside it. Cross-attention counts as right when the
letter with the highest weight, at the position where a phoneme is about to be written, lies within one letter of
it.

**Limits.** American English, single words, no context: *read* has one pronunciation. Names and loan words go wrong
first. Weights are stored as float16.
"""


def tokenizers():
    """→ (spelling tokenizer, phoneme tokenizer): characters of the training words."""
    training, _ = load_words()
    spelling = character_tokenizer([word for word, _ in training], [PAD, START, END], f"$A {END}")
    phonemes = character_tokenizer([said for _, said in training], [PAD, START, END], f"{START} $A")
    return spelling, phonemes


def prepare() -> Training:
    torch.manual_seed(RECIPE.seed)
    spelling, phonemes = tokenizers()
    training, held_out = load_words()
    sources = [encoding.ids for encoding in spelling.encode_batch([word for word, _ in training])]
    end = phonemes.token_to_id(END)
    targets = [[*encoding.ids, end] for encoding in phonemes.encode_batch([said for _, said in training])]
    config = EncoderDecoderConfig(spelling.get_vocab_size(), phonemes.get_vocab_size(), **SIZE)
    module = EncoderDecoder(config)

    def batch(step: int) -> tuple[Tensor, Tensor]:
        """Words of about one length (little padding) → spellings (B, S) and phonemes with both ends (B, T + 1),
        padded with 0 to a multiple of 4."""
        generator = RECIPE.generator(step)
        drawn = torch.randint(len(sources), (8 * WORDS_PER_STEP,), generator=generator).tolist()
        drawn.sort(key=lambda i: (len(sources[i]), len(targets[i])))
        start = int(torch.randint(8, (), generator=generator)) * WORDS_PER_STEP
        chosen = drawn[start : start + WORDS_PER_STEP]
        return padded([sources[i] for i in chosen], 4), padded([targets[i] for i in chosen], 4, extra=1)

    def loss(source: Tensor, target: Tensor) -> Tensor:
        real = (source != 0, target[:, :-1] != 0)
        logits = module(source, target[:, :-1], *real)
        return F.cross_entropy(logits.flatten(0, 1), target[:, 1:].flatten(), ignore_index=0, label_smoothing=0.1)

    def progress() -> str:
        some = held_out[::20]
        return f"phoneme error rate on {len(some)} held-out words {error_rate(module, spelling, phonemes, some)[0]:.3f}"

    def save(folder) -> None:
        spelling.save(str(folder / "tokenizer.json"))
        phonemes.save(str(folder / "target-tokenizer.json"))

    fields = {"source": WORDS.package, "about": WORDS.about, "licence": WORDS.licence, "words": WORDS_PER_STEP}
    card = CARD
    for key, value in fields.items():
        card = card.replace("{" + key + "}", str(value))
    described = {"architecture": "encoder-decoder", **asdict(config)}
    return Training(RECIPE, module, described, batch, loss, progress, card, save)


def padded(rows: Sequence[Sequence[int]], multiple: int, extra: int = 0) -> Tensor:
    """Rows of token ids → (B, T), T a multiple plus ``extra``, filled up with 0 on the right."""
    length = -(-(max(map(len, rows)) - extra) // multiple) * multiple + extra
    out = torch.zeros(len(rows), length, dtype=torch.long)
    for row, ids in zip(out, rows, strict=True):
        row[: len(ids)] = torch.tensor(ids)
    return out


# -- measuring ------------------------------------------------------------------------------------------------------


def spoken(module: EncoderDecoder, spelling, phonemes, words: list[str]) -> list[str]:
    """Greedy pronunciations, in batches of words of one length."""
    start, end = phonemes.token_to_id(START), phonemes.token_to_id(END)
    by_length = defaultdict(list)
    for word in words:
        by_length[len(word)].append(word)
    said = {}
    for group in by_length.values():
        ids = torch.tensor([encoding.ids for encoding in spelling.encode_batch(group)])
        for word, row in zip(group, module.generate(ids, start, end, limit=60), strict=True):
            said[word] = phonemes.decode(row)
    return [said[word] for word in words]


def error_rate(module: EncoderDecoder, spelling, phonemes, pairs: list[tuple[str, str]]) -> tuple[float, float]:
    """→ (phoneme error rate: edits over phonemes of the reference; share of words not wholly right), stress marks
    counted as symbols."""
    return compare(spoken(module, spelling, phonemes, [word for word, _ in pairs]), [said for _, said in pairs])


def compare(said: list[str], wanted: list[str]) -> tuple[float, float]:
    edits = [edit_distance(a, b) for a, b in zip(said, wanted, strict=True)]
    return sum(edits) / sum(map(len, wanted)), sum(map(bool, edits)) / len(edits)


def edit_distance(a: Sequence, b: Sequence) -> int:
    """Levenshtein (1966): the fewest insertions, deletions and substitutions.

    >>> edit_distance("kitten", "sitting")
    3
    """
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        diagonal, row[0] = row[0], i
        for j, y in enumerate(b, 1):
            diagonal, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, diagonal + (x != y))
    return row[-1]


class MonotoneAlignment:
    """Which letter each phoneme comes from, learned from pairs alone: a hidden Markov model whose states are letters,
    which never go back (Vogel et al. 1996, "HMM-Based Word Alignment", with jumps of 0 … 3 letters), trained by
    expectation maximisation in its hard form (Viterbi training) from a diagonal start. A letter that is silent inside
    a word can stay with the sound of the letter beside it."""

    JUMPS = 4  # to the same letter, the next, one further, or one more

    def __init__(self, pairs: list[tuple[str, str]], rounds: int = 5):
        self.sounds: dict[str, Counter] = defaultdict(Counter)
        self.jumps = Counter({0: 1, 1: 4, 2: 1, 3: 1})
        for word, said in pairs:
            for at, phoneme in enumerate(said):
                self.sounds[word[at * len(word) // len(said)]][phoneme] += 1
        for _ in range(rounds):
            sounds, jumps = defaultdict(Counter), Counter()
            for word, said in pairs:
                path = self.align(word, said)
                for at, phoneme in zip(path, said, strict=True):
                    sounds[word[at]][phoneme] += 1
                jumps.update(b - a for a, b in zip([-1, *path], path, strict=False))
            self.sounds, self.jumps = sounds, jumps

    def align(self, word: str, said: str) -> list[int]:
        """The letter of each phoneme, by the Viterbi path; every path is allowed where none is likely."""
        total = sum(self.jumps.values())
        move = [torch.tensor((self.jumps[j] + 0.1) / total).log().item() for j in range(self.JUMPS)]
        best, back = None, []
        for phoneme in said:
            emit = [self._emit(letter, phoneme) for letter in word]
            if best is None:
                best = [emit[i] + (move[i + 1] if i + 1 < self.JUMPS else -30.0) for i in range(len(word))]
                continue
            now, came = [], []
            for i in range(len(word)):
                options = [(best[i - j] + move[j], i - j) for j in range(min(self.JUMPS, i + 1))]
                score, source = max(options)
                now.append(score + emit[i])
                came.append(source)
            best = now
            back.append(came)
        at = max(range(len(word)), key=best.__getitem__)
        path = [at]
        for came in reversed(back):
            at = came[at]
            path.append(at)
        return path[::-1]

    def _emit(self, letter: str, phoneme: str) -> float:
        return _log(self.sounds[letter][phoneme] + 0.01, sum(self.sounds[letter].values()) + 1.0)


@cache
def _log(numerator: float, denominator: float) -> float:
    return torch.tensor(numerator / denominator).log().item()


class ChunkTable:
    """The simple baseline: letters to sounds by the longest letter chunks seen in training, their commonest sounds."""

    LONGEST = 5

    def __init__(self, pairs: list[tuple[str, str]], alignment: MonotoneAlignment):
        self.table: dict[str, Counter] = defaultdict(Counter)
        for word, said in pairs:
            sounds = [""] * len(word)
            for at, phoneme in zip(alignment.align(word, said), said, strict=True):
                sounds[at] += phoneme
            marked, sounds = f"^{word}$", ["", *sounds, ""]
            for start in range(len(marked)):
                for stop in range(start + 1, min(start + self.LONGEST, len(marked)) + 1):
                    self.table[marked[start:stop]]["".join(sounds[start:stop])] += 1
        self.best = {chunk: found.most_common(1)[0][0] for chunk, found in self.table.items()}

    def say(self, word: str) -> str:
        marked, at, said = f"^{word}$", 0, ""
        while at < len(marked):
            size = next((n for n in range(self.LONGEST, 1, -1) if marked[at : at + n] in self.best), 1)
            said += self.best.get(marked[at : at + size], "")
            at += size
        return said


def cross_weights(module: EncoderDecoder, source: Tensor, target: Tensor) -> Tensor:
    """Cross-attention as captured: (1, S), (1, T) → (L, H, T, S)."""
    cap = capture(wrap(module, kind="encoder-decoder"), {"input_ids": source, "decoder_input_ids": target})
    return torch.stack([torch.cat([call.weights(head) for head in range(call.heads)]) for call in cap.stack("cross")])


def alignment_scores(module: EncoderDecoder, spelling, phonemes, pairs, alignment: MonotoneAlignment) -> Tensor:
    """Share of phonemes whose cross head looks, with its highest weight among the letters, within one letter of the
    reference alignment → (L, H). The query is the position that writes the phoneme. Stress marks belong to no letter
    and are left out."""
    hits, total = 0, 0
    for word, said in pairs:
        source, target = spelling.encode(word).ids, phonemes.encode(said).ids
        weights = cross_weights(module, torch.tensor([source]), torch.tensor([target]))  # (L, H, T, S)
        reference = alignment.align(word, said)
        sounded = [t for t, phoneme in enumerate(said) if phoneme not in "ˈˌ"]
        looked = weights[:, :, sounded, : len(word)].argmax(-1)  # (L, H, sounded): query t has read said[:t]
        wanted = torch.tensor([reference[t] for t in sounded])
        hits = hits + ((looked - wanted).abs() <= 1).sum(-1)
        total += len(sounded)
    return hits / total


def report(seed: int = 1000) -> str:
    """Every figure below is computed here and now."""
    module, tokenizer, _ = load_bundled("tiny-encoder-decoder")
    training, held_out = load_words()
    spelling, phonemes = tokenizer["source"], tokenizer["target"]
    rate, wrong = error_rate(module, spelling, phonemes, held_out)
    alignment = MonotoneAlignment(training[seed % 4 :: 4])
    table = ChunkTable(training, alignment)
    base_rate, base_wrong = compare([table.say(word) for word, _ in held_out], [said for _, said in held_out])
    sample = held_out[seed % 4 :: 4]
    scores = alignment_scores(module, spelling, phonemes, sample, alignment)
    layer, head = divmod(int(scores.argmax()), scores.shape[1])
    return "\n".join(
        [
            f"data                    {WORDS}",
            f"words                   {len(training):,} for training, {len(held_out):,} held out",
            f"parameters              {sum(p.numel() for p in module.parameters()):,}",
            f"phoneme error rate      {rate:.4f}   words wrong {wrong:.4f}",
            f"letter-chunk table      {base_rate:.4f}   words wrong {base_wrong:.4f}",
            f"alignment               {len(sample):,} held-out words (from word {seed % 4}, every 4th), seed {seed}",
            f"  best cross head       {float(scores.max()):.4f} within one letter, layer {layer}, head {head}",
        ]
    )
