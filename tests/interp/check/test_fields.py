"""Right modules of other fields are not flagged; the bug planted in each is found."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

from headwise import check
from tests.interp.check.fields import FIELDS


@pytest.mark.parametrize("field", FIELDS, ids=lambda f: f.name)
def test_a_right_module_is_not_flagged(field):
    report = check(field.built(wrong=False), field.expect, **field.options)
    assert report.ok, str(report)


@pytest.mark.parametrize("field", FIELDS, ids=lambda f: f.name)
def test_its_bug_is_found(field):
    report = check(field.built(wrong=True), field.expect, **field.options)
    assert report.findings and not report.errors, str(report)
    assert (report.findings[0].module or "").startswith(field.where), str(report)


def test_there_are_many():
    assert len(FIELDS) >= 25 and len({field.name for field in FIELDS}) == len(FIELDS)


KERAS = """
import keras
from headwise import check

def block(padding):
    keras.utils.set_random_seed(0)
    x = inputs = keras.Input((None, 6), name="series")
    x = keras.layers.Conv1D(16, 3, padding=padding, dilation_rate=2, name="conv")(x)
    x = x + keras.layers.MultiHeadAttention(4, 4, name="attend")(x, x, use_causal_mask=True)
    return keras.Model(inputs, keras.layers.Dense(1, name="head")(keras.layers.LayerNormalization()(x)))

right, wrong = check(block("causal"), "causal"), check(block("same"), "causal")
assert right.ok, str(right)
assert wrong.classes == ("outside-attention",) and wrong.findings[0].module.startswith("conv"), str(wrong)
"""


@pytest.mark.skipif(importlib.util.find_spec("keras") is None, reason="pip install keras")
def test_a_causal_block_of_keras_on_torch():
    """In a fresh process: Keras's backend is chosen as it is imported."""
    ran = subprocess.run(
        [sys.executable, "-c", KERAS],
        env=os.environ | {"KERAS_BACKEND": "torch"},
        cwd=Path(__file__).parents[3],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert ran.returncode == 0, ran.stderr[-3000:]
