"""tiny-encoder: BERT's two objectives, masked tokens and next sentence, on the Bible, reviews and editorials."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass
from itertools import pairwise

import torch
import torch.nn.functional as F
from tokenizers import Tokenizer
from torch import Tensor

from headwise.models.architectures.blocks import sinusoids
from headwise.models.architectures.encoder import Encoder, EncoderConfig
from headwise.models.recipes.data import BIBLE, REVIEWS, load_bible, load_reviews, load_snippets, train_wordpiece
from headwise.models.recipes.training import Recipe, Training
from headwise.models.sources.bundled import load_bundled

RECIPE = Recipe(steps=5000, warmup=100, matrix_lr=0.02, other_lr=0.003, weight_decay=0.1)
SIZE = {"layers": 4, "heads": 6, "width": 192, "context": 128, "dropout": 0.0}
VOCABULARY = 4096
TOKENS_PER_STEP = 3072
OFFSETS = (-1, 1, -2, 2, -3, 3)  # positions that the first block's heads start out preferring
BASE, STRENGTH = 100.0, 3.0  # see prefer_neighbours
MASKED = 0.2  # share of the tokens; 0.15 in BERT, more learns faster (Wettig et al. 2023)
CARD = """\
# {name}

A BERT-style encoder (Devlin et al. 2019): {config[layers]} layers × {config[heads]} heads, width {config[width]},
{parameters:,} parameters, post-LN, learned positions, context {config[context]}, lower-case WordPiece with
{config[vocab_size]:,} tokens. It fills in [MASK], and says whether a second text follows the first.

**Data.** {bible}: {bible_about}; {bible_licence}. {reviews}: {reviews_about}; {reviews_licence}. Of the Bible
every 20th chapter is held out, whole; of film reviews every 10th, of product reviews and editorials every 20th
document. The tokenizer has not seen them either.

**Training.** `headwise train {name}`: {recipe.steps:,} steps of about {tokens:,} tokens, seed
{recipe.seed}, {minutes:.0f} minutes on one CPU core beside other work, with `--compile`. {masked:.0%} of a text's
tokens are to be guessed: 80 % of them become [MASK], 10 % another token, 10 % stay. Next sentence: two neighbouring
passages of a text, or, half of the time, the second from another text; film reviews, which have no neighbours, come
alone. Muon for the hidden matrices, AdamW for the rest, bfloat16 products, linear decay to zero.
Positions start as sinusoids, and each head of the first block with a preference for one place beside its own
(`prefer_neighbours` in `models/recipes/encoder.py`), which training was free to change: with plain random weights
the loss stood still at that of single words for 600 steps.

**Measured** by `headwise evaluate {name}` on the held-out texts:

```
{report}
```

The baseline of masked tokens guesses from the token before and the token after, as the model is shown them: the
commonest token between the two in training, backing off to one neighbour, then to the commonest token.

**Limits.** Its English is that of 1611, of film critics and of editorials; it knows no facts worth asking for, and
carries the views of its texts. Weights are stored as float16.
"""


@dataclass(frozen=True)
class Corpus:
    """Documents as lists of sentences. Those of one sentence have no neighbours."""

    training: list[list[str]]
    held_out: list[list[str]]


def load_corpus() -> Corpus:
    chapters, held_chapters = load_bible()
    reviews, held_reviews = load_reviews()
    training = [*chapters, *([s.text] for s in reviews)]
    held_out = [*held_chapters, *([s.text] for s in held_reviews)]
    for kind in ("amazonReviewSnippets", "nytEditorialSnippets"):
        documents: dict[str, list[str]] = {}
        for snippet in load_snippets(kind):
            documents.setdefault(snippet.document, []).append(snippet.text)
        documents = list(documents.values())
        training += [d for number, d in enumerate(documents, 1) if number % 20]
        held_out += documents[19::20]
    return Corpus(training, held_out)


class Pairs:
    """Documents as token ids, cut into [CLS] A [SEP] B [SEP] on demand."""

    def __init__(self, tokenizer: Tokenizer, documents: list[list[str]]):
        self.tokenizer = tokenizer
        flat = [sentence for document in documents for sentence in document]
        encoded = iter(tokenizer.encode_batch(flat, add_special_tokens=False))
        self.documents = [[next(encoded).ids for _ in document] for document in documents]
        self.cls, self.sep, self.mask = (tokenizer.token_to_id(token) for token in ("[CLS]", "[SEP]", "[MASK]"))
        self.weights = torch.tensor([float(sum(map(len, d))) for d in self.documents])  # every token alike

    def draw(self, length: int, generator: torch.Generator) -> tuple[list[int], list[int], int]:
        """→ (ids, segments, 0 if the second text follows, 1 if it is random, −100 if there is none), at most
        ``length``."""
        document = self.documents[self._document(generator)]
        room = length - 3
        if len(document) == 1:
            ids = [self.cls, *document[0][: length - 2], self.sep]
            return ids, [0] * len(ids), -100
        start = int(torch.randint(len(document) - 1, (), generator=generator))
        first, after = self._passage(document, start, room // 2)
        random = bool(torch.rand((), generator=generator) < 0.5) or after >= len(document)
        if random:
            other = self._other(document, generator)
            document, after = other, int(torch.randint(len(other), (), generator=generator))
        second, _ = self._passage(document, after, room - len(first))
        ids = [self.cls, *first, self.sep, *second, self.sep]
        return ids, [0] * (len(first) + 2) + [1] * (len(second) + 1), int(random)

    def _document(self, generator: torch.Generator) -> int:
        return int(torch.multinomial(self.weights, 1, generator=generator))

    def _other(self, document: list[list[int]], generator: torch.Generator) -> list[list[int]]:
        while True:  # of more than one sentence, as the true neighbours are: the kind of text must not tell
            other = self.documents[self._document(generator)]
            if other is not document and len(other) > 1:
                return other

    @staticmethod
    def _passage(document: list[list[int]], start: int, room: int) -> tuple[list[int], int]:
        """Whole sentences from ``start`` while there is room, at least a part of one → (ids, the sentence after)."""
        ids = document[start][:room]
        after = start + 1
        while after < len(document) and len(ids) + len(document[after]) <= room:
            ids = ids + document[after]
            after += 1
        return ids, after


def corrupt(
    ids: Tensor, real: Tensor, mask: int, vocab_size: int, generator: torch.Generator
) -> tuple[Tensor, Tensor, Tensor]:
    """Choose MASKED of every row's ``real`` (B, T) tokens, at least one → (ids as the model sees them (B, T), places
    to guess (B, M), which of these are chosen (B, M)); M = MASKED · T, so shorter rows do not use them all.

    80 % become [MASK], 10 % a random token, 10 % stay (Devlin et al. 2019, §3.1).
    """
    most = max(1, round(MASKED * ids.shape[1]))
    counts = (MASKED * real.sum(1)).round().clamp(min=1)  # (B,)
    places = ((torch.rand(ids.shape, generator=generator) + 1) * real).topk(most, dim=1).indices  # real ones first
    chosen = (torch.arange(most) < counts[:, None]) & real.gather(1, places)
    fate = torch.rand(places.shape, generator=generator)
    random = torch.randint(5, vocab_size, places.shape, generator=generator)
    kept = ids.gather(1, places)
    shown = torch.where(fate < 0.8, mask, torch.where(fate < 0.9, random, kept))
    return ids.scatter(1, places, torch.where(chosen, shown, kept)), places, chosen


@torch.no_grad()
def prefer_neighbours(module: Encoder) -> None:
    """Start positions as sinusoids, and each head of the first block with a mild preference for one of OFFSETS, all
    free to change in training.

    A shift by δ positions turns every pair of sinusoids by δ times its frequency (Vaswani et al. 2017, §3.5). So with
    keys read by a matrix A, and queries by A after that turn, q·k is high where the key lies δ further on. With plain
    random weights the loss stood still at that of single words for 600 steps.
    """
    width, heads = module.config.width, module.config.heads
    places = sinusoids(module.config.context, width, BASE)  # (T, C)
    module.position_embedding.weight.copy_(0.04 * 2**0.5 * places)  # twice as large as the tokens
    attention = module.blocks[0].attention
    rates = BASE ** (-torch.arange(0, width, 2) / width)  # (C/2,)
    size = width // heads
    for head, offset in zip(range(heads), OFFSETS, strict=True):
        rows = slice(head * size, (head + 1) * size)
        read = torch.nn.init.orthogonal_(torch.empty(size, width)) * STRENGTH**0.5  # (D, C)
        turn = torch.zeros(width, width)
        cos, sin = (offset * rates).cos(), (offset * rates).sin()
        even, odd = torch.arange(0, width, 2), torch.arange(1, width, 2)
        turn[even, even], turn[even, odd], turn[odd, even], turn[odd, odd] = cos, sin, -sin, cos
        attention.key.weight[rows] = read
        attention.query.weight[rows] = read @ turn


def prepare() -> Training:
    torch.manual_seed(RECIPE.seed)
    corpus = load_corpus()
    tokenizer = train_wordpiece([s for d in corpus.training for s in d], VOCABULARY)
    config = EncoderConfig(tokenizer.get_vocab_size(), **SIZE)
    module = Encoder(config)
    prefer_neighbours(module)
    pairs, held_out = Pairs(tokenizer, corpus.training), Pairs(tokenizer, corpus.held_out)

    def batch(step: int) -> tuple[Tensor, ...]:
        generator = RECIPE.generator(step)
        length = 128 if torch.rand((), generator=generator) < 0.25 else 64
        return examples(pairs, length, TOKENS_PER_STEP // length, config.vocab_size, generator)

    def loss(ids, segments, real, places, targets, follows) -> Tensor:
        x = module.hidden(ids, segments, real)
        at = x.gather(1, places[..., None].expand(-1, -1, x.shape[-1]))  # (B, M, C)
        masked = F.cross_entropy(module.vocabulary(at).flatten(0, 1), targets.flatten())
        return masked + F.cross_entropy(module.next_sentence(module.pool(x)), follows)

    def progress() -> str:
        nats, right, follows = measure(module, held_out, rows=64, seed=7)
        return f"held-out: masked {nats:.3f} nats, {right:.3f} right | next sentence {follows:.3f} right"

    return Training(
        RECIPE,
        module,
        {"architecture": "encoder", **asdict(config)},
        batch,
        loss,
        progress,
        filled(CARD),
        lambda folder: tokenizer.save(str(folder / "tokenizer.json")),
    )


def filled(card: str) -> str:
    fields = {"tokens:,": f"{TOKENS_PER_STEP:,}", "masked:.0%": f"{MASKED:.0%}"}
    for name, source in (("bible", BIBLE), ("reviews", REVIEWS)):
        fields |= {name: source.package, f"{name}_about": source.about, f"{name}_licence": source.licence}
    for key, value in fields.items():
        card = card.replace("{" + key + "}", value)
    return card


def examples(pairs: Pairs, length: int, rows: int, vocab_size: int, generator: torch.Generator) -> tuple[Tensor, ...]:
    """→ (ids as seen, segments, real, places to guess, what stood there, follows); (B, T), (B, T), (B, T), (B, M),
    (B, M), (B,)."""
    drawn = [pairs.draw(length, generator) for _ in range(rows)]
    ids, segments = torch.zeros(rows, length, dtype=torch.long), torch.zeros(rows, length, dtype=torch.long)
    for row, (tokens, parts, _) in enumerate(drawn):
        ids[row, : len(tokens)], segments[row, : len(parts)] = torch.tensor(tokens), torch.tensor(parts)
    real = ids != 0
    plain = real & (ids != pairs.cls) & (ids != pairs.sep)
    seen, places, chosen = corrupt(ids, plain, pairs.mask, vocab_size, generator)
    follows = torch.tensor([label for *_, label in drawn])
    targets = ids.gather(1, places).masked_fill(~chosen, -100)
    return seen, segments, real, places, targets, follows


@torch.no_grad()
def measure(module: Encoder, pairs: Pairs, rows: int, seed: int, length: int = 128) -> tuple[float, float, float]:
    """→ (nats per masked token, share guessed right, share of next-sentence answers right) on ``rows`` examples."""
    generator = torch.Generator().manual_seed(seed)
    losses, right, answers = [], [], []
    for size in [64] * (rows // 64):
        ids, segments, real, places, targets, follows = examples(
            pairs, length, size, module.config.vocab_size, generator
        )
        x = module.hidden(ids, segments, real)
        logits = module.vocabulary(x.gather(1, places[..., None].expand(-1, -1, x.shape[-1]))).float()
        guessed = targets != -100
        losses.append(F.cross_entropy(logits[guessed], targets[guessed], reduction="none"))
        right.append((logits.argmax(-1) == targets)[guessed])
        asked = follows != -100
        answers.append((module.next_sentence(module.pool(x)).argmax(-1) == follows)[asked])
    return tuple(float(torch.cat(part).float().mean()) for part in (losses, right, answers))


class Between:
    """The simple baseline: the commonest training token between two neighbours, else after the left one, else of
    all."""

    def __init__(self, documents: list[list[list[int]]]):
        both, left, alone = {}, {}, Counter()
        for document in documents:
            ids = [token for sentence in document for token in sentence]
            alone.update(ids)
            for a, b in pairwise(ids):
                left.setdefault(a, Counter())[b] += 1
            for a, b, c in zip(ids, ids[1:], ids[2:], strict=False):
                both.setdefault((a, c), Counter())[b] += 1
        self.both = {key: found.most_common(1)[0][0] for key, found in both.items()}
        self.left = {key: found.most_common(1)[0][0] for key, found in left.items()}
        self.alone = alone.most_common(1)[0][0]

    def guess(self, left: int, right: int) -> int:
        return self.both.get((left, right), self.left.get(left, self.alone))


def report(seed: int = 1000) -> str:
    """Every figure below is computed here and now."""
    module, tokenizers, _ = load_bundled("tiny-encoder")
    corpus = load_corpus()
    pairs, training = Pairs(tokenizers["text"], corpus.held_out), Pairs(tokenizers["text"], corpus.training)
    nats, right, follows = measure(module, pairs, rows=1024, seed=seed)
    baseline, generator, hits = Between(training.documents), torch.Generator().manual_seed(seed), []
    for _ in range(1024 // 64):
        seen, _, _, places, targets, _ = examples(pairs, 128, 64, module.config.vocab_size, generator)
        for ids, at, wanted in zip(seen.tolist(), places.tolist(), targets.tolist(), strict=True):
            hits += [
                baseline.guess(ids[p - 1], ids[min(p + 1, 127)]) == token
                for p, token in zip(at, wanted, strict=True)
                if token != -100
            ]
    sentences = sum(len(d) for d in corpus.held_out)
    return "\n".join(
        [
            f"data                    {BIBLE}",
            f"                        {REVIEWS}",
            f"held out                {sentences:,} sentences, 1,024 examples of 128 tokens, seed {seed}",
            f"parameters              {sum(p.numel() for p in module.parameters()):,}",
            f"masked tokens           {nats:.4f} nats, {right:.4f} guessed right",
            f"  from two neighbours   {sum(hits) / len(hits):.4f} guessed right",
            f"next sentence           {follows:.4f} right, chance 0.5",
        ]
    )
