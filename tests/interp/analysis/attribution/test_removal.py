"""What is lost when units are taken away, by hand and as Captum has it."""

import captum.attr as captum
import pytest
import torch

from headwise.interp.analysis.attribution import explain, features
from headwise.interp.analysis.attribution.removal import window_of
from headwise.interp.analysis.targets import target
from headwise.interp.run.capture import capture
from headwise.models import load


@pytest.fixture(scope="module")
def digit():
    torch.manual_seed(3)
    return capture(load("tiny-vit"), {"pixel_values": torch.rand(1, 1, 28, 28)})


def test_feature_ablation_is_a_run_without_the_unit(digit):
    wanted = target(digit)
    found = explain(digit, "feature ablation", wanted, baseline="mean")
    pixels = digit.inputs.kwargs["pixel_values"].clone()
    pixels[..., 8:12, 4:8] = pixels.mean()  # third row, second column: some 4 × 4 pixels each; one channel
    size = digit.inputs.axes.get("input")
    per_side = 7 if size is not None else 8
    if per_side == 8:  # tensors alone name no patches: eight cells a side, of three pixels, the last one larger
        pixels = digit.inputs.kwargs["pixel_values"].clone()
        pixels[..., 6:9, 3:6] = pixels.mean()
    changed = capture(digit.subject, {"pixel_values": pixels})
    assert found.scores[2 * per_side + 1].item() == pytest.approx(wanted.value(digit) - wanted.value(changed), abs=1e-4)


def test_captum_by_hand():
    """Occlusion of three tokens in a row; each token's score is the mean over the windows that hide it."""
    cap = capture(load("tiny-decoder"), "The people of the United States are")
    wanted, found = target(cap), features(cap)
    module, ids = cap.subject.module, cap.inputs.kwargs["input_ids"]
    x = module.token_embedding(ids).detach()

    def value(x):
        places = torch.arange(x.shape[1])[None]
        for block in module.blocks:
            x = block(x, places, None)
        return torch.nn.functional.linear(module.final_norm(x), module.token_embedding.weight)[:, -1, wanted.token]

    with torch.no_grad():
        by_hand = captum.Occlusion(value).attribute(x, (3, x.shape[2]), (1, x.shape[2]), baselines=0)[0, :, 0]
        alone = captum.FeatureAblation(value).attribute(x, 0, feature_mask=torch.arange(x.shape[1])[None, :, None])
    torch.testing.assert_close(explain(cap, "occlusion", wanted).scores, by_hand, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(explain(cap, "feature ablation", wanted).scores, alone[0, :, 0], atol=1e-4, rtol=1e-4)
    assert found.count == ids.shape[1]


def test_windows_have_the_units_own_width():
    tokens = torch.arange(5)[None, :, None]
    assert window_of(tokens, torch.zeros(1, 5, 16)) == ((3, 16), (1, 16))
    patches = (torch.arange(28)[:, None] // 4 * 7 + torch.arange(28) // 4)[None, None]
    assert window_of(patches, torch.zeros(1, 3, 28, 28)) == ((3, 8, 8), (3, 4, 4))
    strips = (torch.arange(300) // 10)[None, None]
    assert window_of(strips, torch.zeros(1, 80, 300)) == ((80, 30), (80, 10))
    assert window_of(tokens[:, :2], torch.zeros(1, 2, 16)) == ((2, 16), (1, 16))
