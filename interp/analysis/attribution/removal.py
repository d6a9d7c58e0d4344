"""What is lost when units are taken away: feature ablation, one at a time, and occlusion, neighbours together.

Both are Captum's own.
"""

from __future__ import annotations

import torch
from torch import Tensor

from headwise.interp.analysis.attribution.model import Found, Job

TOKENS, PATCHES = 3, 2  # neighbours that a window hides: so many in a row, or a square of so many a side


def feature_ablation(job: Job) -> Found:
    """value(input) − value(input without the unit) (Zeiler & Fergus 2014, §4.2; of tokens: Li et al. 2016)."""
    from captum.attr import FeatureAblation

    features, masks, start = job.features, [], 0
    for one in features.sequences:
        pairs = zip(one.cells, one.tensors, strict=True)
        masks += [(cells + start).expand(1, *tensor.shape[1:]) for cells, tensor in pairs]
        start += len(one)
    method = FeatureAblation(job.counted(features.count + 1))
    with torch.no_grad():
        found = method.attribute(
            job.leaves(), baselines=job.background, feature_mask=tuple(masks), perturbations_per_eval=_at_once(job)
        )
    return Found(_of_units(job, found))


def occlusion(job: Job) -> Found:
    """The same of windows over neighbours; a unit's score is the mean over the windows that hide it (Zeiler & Fergus
    2014, §4.2)."""
    from captum.attr import Occlusion

    features, windows, strides = job.features, [], []
    for one in features.sequences:
        for cells, tensor in zip(one.cells, one.tensors, strict=True):
            window, stride = window_of(cells, tensor)
            windows.append(window)
            strides.append(stride)
    expected = 1
    for window, stride, tensor in zip(windows, strides, features.embedded, strict=True):
        places = 1
        for size, wide, step in zip(tensor.shape[1:], window, stride, strict=True):
            places *= 1 - (wide - size) // step  # the last place may be cut off
        expected += places
    with torch.no_grad():
        found = Occlusion(job.counted(expected)).attribute(
            job.leaves(), tuple(windows), tuple(strides), baselines=job.background,
            perturbations_per_eval=_at_once(job),
        )  # fmt: skip
    return Found(_of_units(job, found))


def window_of(cells: Tensor, tensor: Tensor) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Captum's sliding window over a tensor (1, …) and the strides it moves by: a unit's own width along the axes that
    tell units apart, everything along the others."""
    axes = [axis for axis in range(1, tensor.ndim) if cells.shape[axis] > 1]
    count = PATCHES if len(axes) > 1 else TOKENS
    window, strides = [], []
    for axis in range(1, tensor.ndim):
        size = tensor.shape[axis]
        if axis in axes:
            line = cells[tuple(slice(None) if other == axis else 0 for other in range(cells.ndim))]
            step = int((line == line[0]).sum())
        else:
            step = size
        window.append(min(size, count * step))
        strides.append(step)
    return tuple(window), tuple(strides)


def _at_once(job: Job) -> int:
    return max(1, min(job.features.copies, job.features.count))


def _of_units(job: Job, found: tuple[Tensor, ...]) -> Tensor:
    """Scores that are the same, or nearly, for all numbers of a unit → (U,), their mean."""
    sizes = job.features.gathered(*(torch.ones_like(one) for one in found))
    return job.features.gathered(*found) / sizes
