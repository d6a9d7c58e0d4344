"""tiny-classifier: tiny-encoder, fine-tuned to tell favourable film reviews from unfavourable ones."""

from __future__ import annotations

from dataclasses import asdict, replace

import torch
import torch.nn.functional as F
from tokenizers import Tokenizer
from torch import Tensor

from headwise.models.architectures.encoder import Encoder, EncoderConfig
from headwise.models.recipes.data import REVIEWS, Snippet, load_reviews, load_snippets
from headwise.models.recipes.training import Recipe, Training
from headwise.models.sources.bundled import load_bundled

RECIPE = Recipe(steps=1400, warmup=50, matrix_lr=0.004, other_lr=0.001, weight_decay=0.1, bfloat16=False)
SNIPPETS_PER_STEP = 48
LONGEST = 64  # tokens of a snippet
DROPOUT = 0.2
HIDDEN = 0.1  # share of the tokens that become [MASK] in training, so that no single word decides
CERTAINTY = 2.0  # a mean rating r counts as favourable with probability σ(2 r)
CLASSES = ("unfavourable", "favourable")
CARD = """\
# {name}

tiny-encoder with a classification head on [CLS] in place of its pre-training heads (Devlin et al. 2019, §4.1),
fine-tuned to tell favourable film reviews from unfavourable ones. It has the tokenizer, the shape and the first
weights of tiny-encoder, so the same text can be compared before and after.

**Data.** `{package}`: {about}; {licence}. Film and product reviews; a snippet counts as favourable when the mean of its
20 ratings is above 0. Every 10th film review is held out, from the pre-training and the tokenizer too.

**Training.** `headwise train {name}`: {recipe.steps:,} steps of {snippets} snippets, seed {recipe.seed},
{minutes:.0f} minutes on one CPU core beside other work, all weights free. The target is how sure the raters were: a
mean rating r is favourable with probability σ({certainty} r). Dropout {dropout}, {hidden} of the tokens hidden, linear
decay to zero.

**Measured** by `headwise evaluate {name}` on the held-out snippets:

```
{report}
```

The baseline is logistic regression on tf-idf of words and pairs of words, its strength chosen by cross-validation
on the training snippets.

**Limits.** Counting words judges better: its encoder has read a few megabytes, and words alone tell much of so short a
text. It is for looking at what fine-tuning changes. One kind of text, in English; irony and mixed feelings go wrong
first. Weights are stored as float16.
"""


def prepare() -> Training:
    torch.manual_seed(RECIPE.seed)
    before, tokenizers, _ = load_bundled("tiny-encoder")
    tokenizer = tokenizers["text"]
    config = replace(before.config, classes=CLASSES, dropout=DROPOUT)
    module = fine_tunable(before, config)
    training, held_out = load_reviews()
    products = [snippet for snippet in load_snippets("amazonReviewSnippets") if int(snippet.document) % 20]
    ids, _ = encode(tokenizer, training + products)
    ratings = torch.tensor([snippet.rating for snippet in training + products])
    favourable = (CERTAINTY * ratings).sigmoid()
    targets = torch.stack([1 - favourable, favourable], 1)  # (N, 2)
    mask, specials = tokenizer.token_to_id("[MASK]"), 5

    def batch(step: int) -> tuple[Tensor, Tensor]:
        generator = RECIPE.generator(step)
        chosen = torch.randint(len(ids), (SNIPPETS_PER_STEP,), generator=generator)
        x = ids[chosen]
        hidden = (torch.rand(x.shape, generator=generator) < HIDDEN) & (x >= specials)
        return x.masked_fill(hidden, mask), targets[chosen]

    def loss(x: Tensor, y: Tensor) -> Tensor:
        width = int((x != 0).sum(1).max())  # no row is longer
        return F.cross_entropy(module(x[:, :width], attention_mask=x[:, :width] != 0)["logits"], y)

    fields = {"snippets": SNIPPETS_PER_STEP, "dropout": DROPOUT, "hidden": f"{HIDDEN:.0%}", "certainty": CERTAINTY}
    fields |= {key: getattr(REVIEWS, key) for key in ("about", "package", "licence")}
    card = CARD
    for key, value in fields.items():
        card = card.replace("{" + key + "}", str(value))
    return Training(
        RECIPE,
        module,
        {"architecture": "encoder", **asdict(config)},
        batch,
        loss,
        lambda: f"held-out: {accuracy(module, tokenizer, held_out[::4]):.4f} right",
        card,
        lambda folder: tokenizer.save(str(folder / "tokenizer.json")),
    )


def fine_tunable(before: Encoder, config: EncoderConfig) -> Encoder:
    """The encoder with a fresh classification head; what both share is copied."""
    module = Encoder(config)
    own = module.state_dict()
    module.load_state_dict(own | {key: value for key, value in before.state_dict().items() if key in own})
    return module


def encode(tokenizer: Tokenizer, snippets: list[Snippet]) -> tuple[Tensor, Tensor]:
    """→ ids (N, LONGEST) filled up with 0, labels (N,): 1 where the mean rating is above 0."""
    tokenizer = Tokenizer.from_str(tokenizer.to_str())  # so that its settings stay as they were
    tokenizer.enable_truncation(LONGEST)
    tokenizer.enable_padding(length=LONGEST)
    encodings = tokenizer.encode_batch([snippet.text for snippet in snippets])
    return torch.tensor([e.ids for e in encodings]), torch.tensor([int(s.rating > 0) for s in snippets])


@torch.no_grad()
def accuracy(module: Encoder, tokenizer: Tokenizer, snippets: list[Snippet]) -> float:
    ids, labels = encode(tokenizer, snippets)
    said = torch.cat([module(part, attention_mask=part != 0)["logits"].argmax(1) for part in ids.split(128)])
    return float((said == labels).float().mean())


def bag_of_words(training: list[Snippet], held_out: list[Snippet]) -> float:
    """The simple baseline, by scikit-learn; its strength is chosen by cross-validation on the training snippets."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GridSearchCV
    from sklearn.pipeline import make_pipeline

    model = make_pipeline(
        TfidfVectorizer(ngram_range=(1, 2), min_df=2, sublinear_tf=True), LogisticRegression(max_iter=500)
    )
    search = GridSearchCV(model, {"logisticregression__C": [0.3, 1, 3, 10]}, cv=5)
    search.fit([s.text for s in training], [s.rating > 0 for s in training])
    return float(search.score([s.text for s in held_out], [s.rating > 0 for s in held_out]))


def report(seed: int = 1000) -> str:
    """Every figure below is computed here and now. Nothing is drawn at random, so the seed changes nothing."""
    module, tokenizers, _ = load_bundled("tiny-classifier")
    training, held_out = load_reviews()
    commoner = sum(s.rating > 0 for s in held_out) / len(held_out)
    return "\n".join(
        [
            f"data                    {REVIEWS}",
            f"held out                {len(held_out):,} snippets; nothing is random, seed {seed} is not used",
            f"parameters              {sum(p.numel() for p in module.parameters()):,}",
            f"accuracy                {accuracy(module, tokenizers['text'], held_out):.4f}",
            f"bag of words            {bag_of_words(training, held_out):.4f}",
            f"the commoner class      {max(commoner, 1 - commoner):.4f}",
        ]
    )
