"""``attribute``: what an answer rests on, by a method of METHODS.

found = attribute(load("tiny-classifier"), "A wonderful film", "attention rollout")
found.scores, found.features.labels, found.gap
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from headwise.interp.analysis.attribution.features import Features, features
from headwise.interp.analysis.attribution.gradients import (
    deeplift,
    gradient_shap,
    input_x_gradient,
    integrated_gradients,
    saliency,
)
from headwise.interp.analysis.attribution.lrp import attn_lrp
from headwise.interp.analysis.attribution.maps import sequence_of
from headwise.interp.analysis.attribution.model import STEPS, Attribution, Job, Method
from headwise.interp.analysis.attribution.relevance import chefer, gradient_x_attention
from headwise.interp.analysis.attribution.removal import feature_ablation, occlusion
from headwise.interp.analysis.attribution.rollout import flow, rollout
from headwise.interp.analysis.targets import Target, Wanted
from headwise.interp.analysis.targets import target as target_of
from headwise.interp.errors import InputError
from headwise.interp.run.capture import Capture, capture
from headwise.interp.subject import Subject

FLOW_POSITIONS = 300  # the most that attention flow is computed for: its time grows with the third power

_ALL = (
    Method(
        "integrated gradients",
        "gradients",
        "How much each unit adds to the answer, by its gradient on the whole way from the baseline to the input.",
        "The scores add up, but they depend on the baseline; where the answer jumps on the way, many steps are needed.",
        ("Sundararajan et al. 2017, Axiomatic Attribution for Deep Networks", "https://arxiv.org/abs/1703.01365"),
        integrated_gradients,
        needs=("gradient",),
        baseline=True,
    ),
    Method(
        "saliency",
        "gradients",
        "How fast the answer changes when a unit's numbers change a little, in whatever direction.",
        "It tells what the answer is sensitive to, not what it rests on, and whether for or against is not told.",
        ("Simonyan et al. 2014, Deep Inside Convolutional Networks", "https://arxiv.org/abs/1312.6034"),
        saliency,
        needs=("gradient",),
        signed=False,
    ),
    Method(
        "input x gradient",
        "gradients",
        "The answer's gradient times the input: the first-order effect of setting a unit to zero.",
        "Only exact for a linear model: a gradient at the input knows nothing of how the answer saturates.",
        ("Shrikumar et al. 2016, Not Just a Black Box", "https://arxiv.org/abs/1605.01713"),
        input_x_gradient,
        needs=("gradient",),
    ),
    Method(
        "DeepLIFT",
        "gradients",
        "Differences from the baseline, carried back through the network by their ratios.",
        "Captum has the rule for ReLU, tanh and their kin as modules; attention and GELU have their plain gradient, so "
        "in a transformer the scores seldom add up, and the gap says by how much.",
        ("Shrikumar et al. 2017, Learning Important Features Through Propagating Activation Differences",
         "https://arxiv.org/abs/1704.02685"),
        deeplift,
        needs=("gradient",),
        baseline=True,
    ),
    Method(
        "GradientSHAP",
        "gradients",
        "The gradient at random places between the baseline and the input, with some noise: expected gradients.",
        "It is drawn at random (always by the same seed) and adds up on average only.",
        ("Lundberg & Lee 2017, A Unified Approach to Interpreting Model Predictions",
         "https://arxiv.org/abs/1705.07874"),
        gradient_shap,
        needs=("gradient",),
        baseline=True,
    ),
    Method(
        "occlusion",
        "removal",
        "How much the answer loses when a window of neighbours is replaced by the baseline.",
        "Inputs with holes are unlike what the model was trained on; what two units say alike is missed by either.",
        ("Zeiler & Fergus 2014, Visualizing and Understanding Convolutional Networks",
         "https://arxiv.org/abs/1311.2901"),
        occlusion,
        baseline=True,
    ),
    Method(
        "feature ablation",
        "removal",
        "How much the answer loses when this unit alone is replaced by the baseline.",
        "What two units say alike is missed, since either alone suffices; one run a unit.",
        ("Li et al. 2016, Understanding Neural Networks through Representation Erasure",
         "https://arxiv.org/abs/1612.08220"),
        feature_ablation,
        baseline=True,
    ),
    Method(
        "attention rollout",
        "attention",
        "How much of each unit arrives where the answer is read, if every layer passed on what its weights say.",
        "It knows neither values nor MLPs, and is the same for every answer.",
        ("Abnar & Zuidema 2020, Quantifying Attention Flow in Transformers", "https://arxiv.org/abs/2005.00928"),
        rollout,
        needs=("attention", "one stack"),
        signed=False,
    ),
    Method(
        "attention flow",
        "attention",
        "The most that can flow from where the answer is read to each unit, with attention weights as pipes.",
        "It knows neither values nor MLPs, and is the same for every answer; slow on long inputs.",
        ("Abnar & Zuidema 2020, Quantifying Attention Flow in Transformers", "https://arxiv.org/abs/2005.00928"),
        flow,
        needs=("attention", "one stack", "few positions"),
        signed=False,
    ),
    Method(
        "gradient x attention",
        "attention",
        "Attention weights times the answer's gradient by them, where it is positive, over all layers and heads.",
        "Layers are added up as if each read the input itself; what speaks against the answer is left out.",
        ("Barkan et al. 2021, Grad-SAM: Explaining Transformers via Gradient Self-Attention Maps",
         "https://arxiv.org/abs/2204.11073"),
        gradient_x_attention,
        needs=("attention", "gradient"),
        signed=False,
    ),
    Method(
        "Chefer relevance",
        "attention",
        "Attention weighed by its gradient and carried up through the layers, also from an encoder to its decoder.",
        "What speaks against the answer is left out, and so are the MLPs.",
        ("Chefer et al. 2021, Generic Attention-model Explainability for Interpreting Bi-Modal and Encoder-Decoder "
         "Transformers", "https://arxiv.org/abs/2103.15679"),
        chefer,
        needs=("attention", "gradient"),
        signed=False,
    ),
    Method(
        "AttnLRP",
        "relevance",
        "The answer's logit, handed back layer by layer to what made it, with rules for attention, norms and MLPs.",
        "Biases keep their share, so the scores need not add up to the logit; on pictures it is noisy, where the paper "
        "takes another rule for linear maps.",
        ("Achtibat et al. 2024, AttnLRP: Attention-Aware Layer-Wise Relevance Propagation for Transformers",
         "https://arxiv.org/abs/2402.05602"),
        attn_lrp,
        needs=("gradient",),
    ),
)  # fmt: skip
METHODS: Mapping[str, Method] = MappingProxyType({method.name: method for method in _ALL})


def attribute(
    subject: Subject,
    raw: Any,
    method: str = "integrated gradients",
    target: Wanted | Target = None,
    against: Wanted = None,
    **options,
) -> Attribution:
    """What a subject's answer to an input rests on.

    ``method`` is a name in METHODS. ``target`` is a word, a class or its number, by default what the model itself
    answers; with ``against`` the difference of the two logits is explained. ``options`` are those of ``explain``:
    baseline, steps, progress, cancel. Raises InputError where the method does not apply to this model (``why_not`` says
    so beforehand), and for a target that is not there.
    """
    cap = capture(subject, raw)
    return explain(cap, method, target_of(cap, target, against), **options)


def explain(
    cap: Capture,
    method: str = "integrated gradients",
    target: Target | None = None,
    *,
    baseline: str | None = None,
    steps: int = STEPS,
    progress: Callable[[float], None] = lambda fraction: None,
    cancel: Callable[[], bool] = lambda: False,
) -> Attribution:
    """The same of a capture, edits and all.

    ``baseline`` is one of ``features(cap).baselines``, the first by default; ``steps`` are points on the way of
    integrated gradients, or samples of GradientSHAP. ``progress`` is told the fraction done; ``cancel`` is asked
    between runs, and a True raises Cancelled.
    """
    how = _method(method)
    if not isinstance(steps, int) or steps < 1:
        raise InputError(f"steps expects a whole number, 1 or more; got {steps!r}.")
    found = features(cap)
    if (reason := _refusal(how, found)) is not None:
        raise InputError(reason)
    if baseline is None:
        baseline = found.baselines[0]
    elif baseline not in found.baselines:
        raise InputError(f"The baselines here are {', '.join(found.baselines)}; got {baseline!r}.")
    wanted = target_of(cap) if target is None else target
    began = time.perf_counter()
    answer = how.apply(Job(found, wanted, baseline, steps, progress, cancel))
    if not bool(answer.scores.isfinite().all()):
        raise InputError(f"{method} gives numbers that are not finite here. Load the model in float32.")
    progress(1.0)
    return Attribution(
        answer.scores.detach().float().cpu(),
        found,
        how.name,
        wanted,
        baseline if how.baseline else None,
        answer.gap,
        how.signed,
        time.perf_counter() - began,
        answer.note,
    )


def why_not(cap: Capture, method: str) -> str | None:
    """Why a method does not apply to this model on this input, in one sentence; None where it does. Runs nothing dear.
    Raises InputError for a method that is not there."""
    how = _method(method)
    try:
        found = features(cap)
    except InputError as error:
        return str(error)
    return _refusal(how, found)


def _method(name: str) -> Method:
    if name not in METHODS:
        raise InputError(f"The methods are {', '.join(METHODS)}; got {name!r}.")
    return METHODS[name]


def _refusal(how: Method, found: Features) -> str | None:
    for need in how.needs:
        if (reason := NEEDS[need](found)) is not None:
            return f"{how.name[0].upper()}{how.name[1:]} does not apply to {found.cap.subject.name}: {reason}"
    return None


# -- what a method may need → why it is not there ----------------------------------------------------------------------
def _gradient(found: Features) -> str | None:
    if not found.cap.subject.dtype.is_floating_point:
        return "its weights are whole numbers, which have no gradient. Load it in float32."
    return None


def _attention(found: Features) -> str | None:
    calls = found.cap.calls
    if not calls:
        return "no attention over positions was seen in it."
    if any(call.batch != 1 for call in calls):
        return "its layers attend within windows, so their positions are not those of the input."
    for stack in found.cap.stacks:
        own = [call for call in calls if call.stack == stack]
        if len({(call.queries, call.keys) for call in own}) > 1:
            return "its layers attend over sequences of different lengths, so their positions cannot be followed."
        if stack != "cross" and own[0].queries != own[0].keys:
            return "its queries and keys are not the same positions."
        if sequence_of(found, own[0]) is None:
            return "the positions that it attends over are not known to be units of its input."
    if "cross" not in found.cap.stacks and len(found.cap.stacks) > 1:
        return "it has several stacks of attention that do not attend to each other."
    return None


def _one_stack(found: Features) -> str | None:
    if len(found.cap.stacks) > 1:
        return (
            "the paper has it for one stack of self-attention, and this model also attends from one sequence to "
            "another. Chefer relevance has rules for both."
        )
    return None


def _few_positions(found: Features) -> str | None:
    length = max(call.queries for call in found.cap.calls)
    if length > FLOW_POSITIONS:
        return f"its input has {length:,} positions, and more than {FLOW_POSITIONS} take too long."
    return None


NEEDS: Mapping[str, Callable[[Features], str | None]] = MappingProxyType(
    {"gradient": _gradient, "attention": _attention, "one stack": _one_stack, "few positions": _few_positions}
)
