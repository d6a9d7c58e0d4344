"""The LSTM: the equations of torch's documentation by hand, steps, and no look ahead."""

import torch

from headwise import check, masks
from headwise.models.architectures.lstm import LSTM, LSTMConfig


def model() -> LSTM:
    torch.manual_seed(0)
    return LSTM(LSTMConfig(vocab_size=11, context=64, layers=2, width=8, hidden=6)).eval()


@torch.no_grad()
def test_cells_by_hand():
    """i, f, g, o of each layer in turn; c = f c + i g, h = o tanh c."""
    module, ids = model(), torch.tensor([[3, 7, 1]])
    x = module.embedding_norm(module.token_embedding.weight[ids[0]])
    for layer in range(2):
        given, kept, *biases = (
            getattr(module.cells, f"{part}_l{layer}") for part in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
        )
        h, c, outs = torch.zeros(6), torch.zeros(6), []
        for token in x:
            i, f, g, o = (given @ token + kept @ h + sum(biases)).chunk(4)
            c = f.sigmoid() * c + i.sigmoid() * g.tanh()
            h = o.sigmoid() * c.tanh()
            outs.append(h)
        x = torch.stack(outs)
    logits = module.final_norm(module.down(x)) @ module.token_embedding.weight.T
    assert torch.allclose(module(ids)[0], logits, atol=1e-6)


def test_steps_are_the_forward_and_nothing_looks_ahead():
    report = check(model(), expect=masks.Causal(), step=lambda module, ids, state: module.step(ids, state))
    assert report.ok, report
