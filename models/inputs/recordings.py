"""Recordings for Hugging Face speech models: Whisper and others that write a target, wav2vec 2.0 and its kin."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy.signal import spectrogram
from torch import Tensor, nn

from headwise.interp.attention.axes import Axis, Sound
from headwise.interp.errors import InputError
from headwise.interp.subject import Inputs
from headwise.models.inputs.base import BaseReader, arguments, taken
from headwise.models.inputs.media import Waveform, resample, shortened
from headwise.models.inputs.texts import (
    checked_target,
    end_tokens,
    pair,
    start_token,
    typed_target,
    written,
    written_target,
)

SECONDS = 60  # of a recording, for models without a limit of their own: attention grows with its square
SPOKEN = 200  # target tokens a model writes at most; 30 seconds of fast speech have about 150
WINDOW, HOP = 0.025, 0.010  # seconds, of a spectrogram that is only drawn


@dataclass(frozen=True, eq=False, repr=False)
class RecordingReader(BaseReader):
    """A Waveform, or samples (N,) at the model's rate; with models that write, also (one of these, target text).

    Without a target, or with "" or None, the model writes it, greedily. ``extractor`` is the checkpoint's feature
    extractor, ``tokenizer`` None when it has none, ``limit`` of target tokens.
    """

    extractor: Any
    module: nn.Module
    tokenizer: Any
    limit: int | None

    def read(self, raw: Any, truncate: bool) -> Inputs:
        given, second = pair(raw)
        target = checked_target(second, truncate)
        writes, rate = "decoder_input_ids" in arguments(self.module), self.extractor.sampling_rate
        if target is not None and not writes:
            raise InputError("This model writes no target. Give the recording alone.")
        longest = getattr(self.extractor, "chunk_length", None) or SECONDS
        waveform, cut = shortened(_waveform(given, rate), longest, truncate)
        seconds = waveform.seconds
        waveform, resampled = resample(waveform, rate)
        made = self.extractor(waveform.samples, sampling_rate=rate, return_tensors="pt")
        kwargs = taken(self.module, made)
        kwargs = {
            k: v for k, v in kwargs.items() if not (k.endswith("attention_mask") and bool(v.all()))
        }  # none padded
        heard = kwargs["input_features"] if "input_features" in kwargs else kwargs["input_values"]
        axis = _frames(self.module, self.extractor, heard, waveform, seconds)
        notes = waveform.notes + cut + resampled
        if not writes:
            return Inputs(kwargs, {"input": axis} if axis else {}, notes)
        ids, axis_of_target, more = self._target(target, kwargs, truncate)
        kwargs["decoder_input_ids"] = torch.tensor([ids], device=heard.device)
        axes = {"source": axis} if axis else {}
        return Inputs(kwargs, {**axes, "target": axis_of_target}, notes + more)

    def _target(self, target, features: dict, truncate: bool) -> tuple[list[int], Axis, tuple[str, ...]]:
        module, tokenizer, limit = self.module, self.tokenizer, self.limit
        if tokenizer is None:
            raise InputError("This checkpoint has no usable tokenizer. Give a dict of tensors with decoder_input_ids.")
        whisper = module.config.model_type == "whisper"
        # Whisper's own generate else leaves out the tokens it starts with: language, task, no timestamps
        whole = {"force_unique_generate_call": True, "return_timestamps": False} if whisper else {}
        if target is None:
            ids, notes = written(module, SPOKEN, **features, **whole)
            start = start_token(module)
            ids, axis, cut = written_target(tokenizer, ids if ids[:1] == [start] else [start, *ids], limit, truncate)
            return ids, axis, notes + cut
        text, notes = target
        if not whisper:
            ids, axis, cut = typed_target(tokenizer, text, [start_token(module)], limit, truncate)
            return ids, axis, notes + cut
        start = written(module, 1, **features, **whole)[0][:-1] if module.can_generate() else [start_token(module)]
        text = text if text[:1].isspace() else f" {text}"  # Whisper's texts start with a space
        ids, axis, cut = typed_target(tokenizer, text, start, limit, truncate, end=list(end_tokens(module)[:1]))
        return ids, axis, notes + cut


def _waveform(raw: Any, rate: int) -> Waveform:
    """Samples at the model's rate, checked, or a Waveform at its own. Raises InputError."""
    if not isinstance(raw, Waveform):
        if not isinstance(raw, np.ndarray | Tensor):
            raise InputError(
                f"Expected a recording, got {type(raw).__name__}. Give a Waveform from headwise.models.read_wav, or "
                f"its samples at {rate:,} Hz."
            )
        samples = raw.detach().cpu().numpy() if isinstance(raw, Tensor) else raw
        if samples.ndim != 1:
            raise InputError(
                f"Expected the samples of one channel, shape (N,), got {tuple(samples.shape)}. Average the channels."
            )
        raw = Waveform(samples.astype(np.float32), rate)
    if not len(raw.samples):
        raise InputError("The recording has no samples. Record it again.")
    if not np.isfinite(raw.samples).all():
        raise InputError("The recording has samples that are NaN or infinite. Record it again.")
    return raw


def _frames(module: nn.Module, extractor, features: Tensor, waveform: Waveform, seconds: float) -> Axis | None:
    """The axis of the encoder's positions; None when the model does not tell how many there are."""
    if not hasattr(module, "_get_feat_extract_output_lengths"):
        return None
    if features.ndim == 2:  # samples
        positions = int(module._get_feat_extract_output_lengths(torch.tensor(features.shape[1])))
        if positions < 1:
            raise InputError(f"The recording lasts {seconds:.3f} seconds, too short for this model. Record more.")
        # the stride of the convolutions; seconds / positions would stretch the last, unfilled window over the whole
        stride = getattr(module.config, "inputs_to_logits_ratio", None)
        step = stride / waveform.rate if stride else seconds / positions
        sound = Sound(_spectrogram(waveform), HOP, step, seconds)
    else:
        shown = features[0].float().cpu().numpy()
        shown = shown if len(shown) == getattr(extractor, "feature_size", None) else shown.T  # (bins, frames)
        positions = int(module._get_feat_extract_output_lengths(torch.tensor(shown.shape[1])))
        samples = getattr(extractor, "hop_length", None)
        hop = samples / waveform.rate if samples else seconds / shown.shape[1]
        sound = Sound(shown, hop, hop * shown.shape[1] / positions, seconds)
    return Axis(tuple(f"{i * sound.step:.2f} s" for i in range(positions)), sound=sound)


def _spectrogram(waveform: Waveform) -> np.ndarray:
    """Log power (bins, frames) in windows of 25 ms around the middle of each 10 ms, 80 dB deep."""
    hop, window = round(HOP * waveform.rate), round(WINDOW * waveform.rate)
    frames = -(-len(waveform.samples) // hop)
    before = (window - hop) // 2
    padded = np.pad(waveform.samples, (before, (frames - 1) * hop + window - before - len(waveform.samples)))
    _, _, power = spectrogram(padded, waveform.rate, "hann", window, window - hop, detrend=False)
    return np.log10(np.maximum(power, max(float(power.max()), 1e-30) * 1e-8)).astype(np.float32)
