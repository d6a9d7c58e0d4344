"""tiny-forecaster: the next months of a series, from those before it, by relative attention."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict

import numpy as np
import torch
from scipy.optimize import minimize
from scipy.signal import lfilter
from torch import Tensor

from headwise.interp.analysis.circuits.roles import CYCLIC, roles
from headwise.interp.run.capture import capture
from headwise.models import load
from headwise.models.architectures.variant import VariantConfig, VariantDecoder
from headwise.models.inputs.series import MOST, START, STEP, VOCABULARY, YEAR, changes_of, tokens_of
from headwise.models.recipes.beyond_text import HELD_OUT, STATSMODELS, Monthly, load_months, write_examples
from headwise.models.recipes.training import Recipe, Training
from headwise.models.sources.bundled import load_bundled

RECIPE = Recipe(steps=1000, matrix_lr=0.01, other_lr=0.002, weight_decay=0.3, bfloat16=False)
SIZE = {"layers": 2, "heads": 4, "width": 64, "context": 144, "options": {"reach": 144}}
WINDOW, SERIES_PER_STEP = 133, 32  # months, the first without a change
SETTLE = 12  # months before anything is asked
WIDTH = 1.5  # steps, of the bell that a target is: a change a step beside is nearly right
GROWN, NOISE = 0.25, 0.05  # how much a window is scaled (in logarithms) and blurred
SEASON, SWING = 0.5, 1.2  # share of windows that get a made-up season on top, and its size at most
KNOWN, AHEAD = 120, 12  # months before and after the present, when it is measured
CARD = """\
# {name}

A decoder of {config[layers]} layers × {config[heads]} heads, width {config[width]}, {parameters:,} parameters, that
reads a monthly series and says how the next month changes. A token is a change in steps of 0.1; positions are
distances, with relative attention (Huang et al. 2018). A series told in tokens, and forecast as text is, is the way of
Chronos (Ansari et al. 2024).

**Data.** {about}, from `{package}`; {licence}. Everything from 1990 on is held out.

**Training.** `headwise train {name}`: {recipe.steps:,} steps of {batch} windows of {window} months, seed
{recipe.seed}, {minutes:.0f} minutes on one CPU core. Windows are scaled and blurred a little, and half of them get a
made-up season on top, twelve random numbers over and over: only the same month of earlier years foretells it, and so
heads learn to look there.

**Measured** by `headwise evaluate {name}`, from every month from 1990 on: the mean absolute error of the next twelve
months, given the {known} before. The forecast goes on from its own mean; ARIMA is (0,1,1)(0,1,1)₁₂, the airline model
of Box & Jenkins (1976), fitted to the years before 1990.

```
{report}
```

The same recipe with other seeds: {seeds}.

**Limits.** Two series are little to learn from; it knows one period, twelve. It is for looking at heads that follow a
season. Weights are stored as float16.
"""
SEEDS = (
    "0.452 ppm and 0.968 °C with seed 2, 0.459 ppm and 0.997 °C with seed 3. All are ahead of both\n"
    "naive forecasts on both series, and of ARIMA on carbon dioxide; on El Niño only this one is ahead of ARIMA, so\n"
    "take that as luck"
)


def prepare(seed: int = RECIPE.seed) -> Training:
    recipe = RECIPE if seed == RECIPE.seed else Recipe(**{**asdict(RECIPE), "seed": seed})
    torch.manual_seed(recipe.seed)
    config = VariantConfig("relative", VOCABULARY, positions="none", **SIZE)
    module, series = VariantDecoder(config), load_months()
    targets = bells(torch.arange(START), WIDTH)  # (START, START)

    def batch(step: int) -> tuple[Tensor]:
        drawn = np.random.default_rng((recipe.seed, step))
        return (torch.from_numpy(np.stack([window(series, drawn) for _ in range(SERIES_PER_STEP)])),)

    def loss(tokens: Tensor) -> Tensor:
        logits = module(tokens[:, :-1])[:, SETTLE:, :START]
        return -(targets[tokens[:, SETTLE + 1 :]] * logits.log_softmax(-1)).sum(-1).mean()

    card = CARD.replace("{batch}", str(SERIES_PER_STEP)).replace("{window}", str(WINDOW - 1))
    card = card.replace("{known}", str(KNOWN)).replace("{seeds}", SEEDS)
    for key in ("about", "package", "licence"):
        card = card.replace("{" + key + "}", getattr(STATSMODELS, key))
    config = {"architecture": "forecaster", **asdict(config)}
    return Training(
        recipe,
        module,
        config,
        batch,
        loss,
        lambda: progress(module, series),
        card,
        lambda folder: write_examples(folder, examples(series)),
    )


def examples(series: tuple[Monthly, ...]) -> dict[str, str]:
    """What the app offers: decades that are held out, one that is not, and a season that nothing foretells but its own
    years."""
    carbon, sea = series
    season = np.random.default_rng(4).normal(size=YEAR) * 1.6 + 20
    return {
        "Carbon dioxide, 1990s": carbon.decade(1990),
        "El Niño, 1990s": sea.decade(1990),
        "Carbon dioxide, 1960s": carbon.decade(1960),
        "A made-up year, eight times": "\n".join(f"{value:.1f}" for value in np.tile(season, 8)),
    }


def bells(tokens: Tensor, width: float) -> Tensor:
    """Targets of changes (N,) → (N, START): a bell around each, in place of all on one."""
    distance = (torch.arange(START) - tokens[:, None]) / width
    return (-0.5 * distance.square()).softmax(-1)


def window(series: tuple[Monthly, ...], drawn: np.random.Generator) -> np.ndarray:
    """Tokens (WINDOW,) of a stretch of one of the series, before what is held out, changed a little."""
    one = series[drawn.integers(len(series))]
    start = drawn.integers(one.known - WINDOW + 1)
    values = one.values[start : start + WINDOW] * np.exp(GROWN * drawn.normal())
    values = values + NOISE * drawn.normal(size=WINDOW) + STEP * drawn.random()
    if drawn.random() < SEASON:
        values = values + np.resize(drawn.normal(size=YEAR) * drawn.uniform(0, SWING), WINDOW)
    return tokens_of(values)


# -- forecasts --------------------------------------------------------------------------------------------------------
Forecast = Callable[[np.ndarray], np.ndarray]  # the months before (N, T) → the AHEAD months after (N, AHEAD)


@torch.no_grad()
def model_forecast(module: VariantDecoder, known: np.ndarray) -> np.ndarray:
    """By the mean of what the model says, month after month, its own rounded forecasts read as months."""
    steps = torch.from_numpy(changes_of(np.arange(START))).float()
    tokens, level, made = torch.from_numpy(tokens_of(known)), known[:, -1].copy(), []
    state = None
    for _ in range(AHEAD):
        logits, state = module.step(tokens, state)
        before = np.rint(level / STEP)
        level = level + (logits[:, -1, :START].softmax(-1) @ steps).numpy()
        made.append(level)
        changes = np.clip(np.rint(level / STEP) - before, -MOST, MOST) + MOST
        tokens = torch.from_numpy(changes.astype(np.int64))[:, None]
    return np.stack(made, 1)


def seasonal_naive(known: np.ndarray) -> np.ndarray:
    """The simple baseline: as twelve months ago."""
    return known[:, -YEAR:]


def with_drift(known: np.ndarray) -> np.ndarray:
    """As twelve months ago, and as much higher as the last month is than the one twelve months before it."""
    return known[:, -YEAR:] + (known[:, -1] - known[:, -1 - YEAR])[:, None]


class Airline:
    """ARIMA (0,1,1)(0,1,1)₁₂ (Box & Jenkins 1976, §9.2): (1 − B)(1 − B¹²) y = (1 + θB)(1 + ΘB¹²) e, fitted by its
    exact likelihood (§7.1.4): what went before the first month is fitted too, as small as may be."""

    def __init__(self, values: np.ndarray):
        bounds = [(-0.99, 0.99)] * 2
        found = minimize(lambda p: self._unlikely(values, self._ma(*p)), (-0.3, -0.6), bounds=bounds)
        self.ma = self._ma(*found.x)

    @staticmethod
    def _ma(theta: float, seasonal: float) -> np.ndarray:
        return np.convolve([1, theta], [1, *(0,) * (YEAR - 1), seasonal])

    @classmethod
    def _unlikely(cls, values: np.ndarray, ma: np.ndarray) -> float:
        """−2 log likelihood, up to a constant."""
        errors, volume = cls._errors(values, ma)
        return (len(values) - YEAR - 1) * np.log(np.square(errors).sum()) + volume

    @staticmethod
    def _errors(values: np.ndarray, ma: np.ndarray) -> tuple[np.ndarray, float]:
        """e, those before the first month first; and the logarithm of the determinant that goes with them."""
        differences = np.diff(values)
        differences = differences[YEAR:] - differences[:-YEAR]
        before = len(ma) - 1
        reach = np.zeros((len(differences), before))  # what each error before adds to each difference
        for back in range(before):
            reach[: before - back, back] = ma[back + 1 :]
        filtered = lfilter([1], ma, np.column_stack([differences, reach]), axis=0)
        given, response = filtered[:, 0], filtered[:, 1:]
        square = response.T @ response + np.eye(before)
        early = np.linalg.solve(square, response.T @ given)
        return np.concatenate([early[::-1], given - response @ early]), np.linalg.slogdet(square)[1]

    def __call__(self, known: np.ndarray) -> np.ndarray:
        made = []
        for values in known:
            errors, path = np.concatenate([self._errors(values, self.ma)[0], np.zeros(AHEAD)]), list(values)
            for at in range(len(errors) - AHEAD, len(errors)):
                surprise = errors[at - np.arange(len(self.ma))] @ self.ma
                path.append(path[-1] + path[-YEAR] - path[-YEAR - 1] + surprise)
            made.append(path[-AHEAD:])
        return np.array(made)


def errors_of(one: Monthly, forecast: Forecast, whole: bool = False) -> np.ndarray:
    """Absolute errors (N, AHEAD) of the forecasts from every month of the years held out, from the KNOWN months before
    or, when ``whole``, from all."""
    origins = range(one.known, len(one.values) - AHEAD + 1)
    after = np.stack([one.values[o : o + AHEAD] for o in origins])
    if whole:
        return np.abs(np.concatenate([forecast(one.values[None, :o]) for o in origins]) - after)
    return np.abs(forecast(np.stack([one.values[o - KNOWN : o] for o in origins])) - after)


def progress(module: VariantDecoder, series: tuple[Monthly, ...]) -> str:
    found = (errors_of(one, lambda known: model_forecast(module, known)).mean() for one in series)
    return "held-out error " + ", ".join(f"{error:.3f} {one.unit}" for one, error in zip(series, found, strict=True))


def report(seed: int = 1000) -> str:
    """Every figure below is computed here and now."""
    module, _, _ = load_bundled("tiny-forecaster")
    lines = [
        f"data                    {STATSMODELS}",
        f"parameters              {sum(p.numel() for p in module.parameters()):,}",
        f"held out                the years from {HELD_OUT} on; nothing is random, seed {seed} is not used",
    ]
    for one in load_months():
        count = len(one.values) - AHEAD + 1 - one.known
        lines.append(f"{one.name}, {count} forecasts, {one.unit}: months 1–12, month 1, month 12")
        ways: dict[str, tuple[Forecast, bool]] = {
            "tiny-forecaster": (lambda known: model_forecast(module, known), False),
            "seasonal naive": (seasonal_naive, False),
            "  with drift": (with_drift, False),
            "ARIMA": (Airline(one.values[: one.known]), True),
        }
        for name, (forecast, whole) in ways.items():
            errors = errors_of(one, forecast, whole)
            lines.append(f"  {name:<21} {errors.mean():.3f}   {errors[:, 0].mean():.3f}   {errors[:, -1].mean():.3f}")
    carbon, _ = load_months()
    found = roles(capture(load("tiny-forecaster"), carbon.text(carbon.known, carbon.known + KNOWN)))
    lines.append("heads with a role, on the carbon dioxide of 1990 to 1999")
    for row in found[found.role.isin(CYCLIC)].itertuples():
        lines.append(f"  layer {row.layer}, head {row.head}: {row.evidence}")
    return "\n".join(lines)
