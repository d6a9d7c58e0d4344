"""Small transformers, each with its residual stream spelled another way; all weights are random, none zero or one."""

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint

C, H, V, LAYERS = 32, 4, 40, 3


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.q, self.k, self.v, self.out = (nn.Linear(C, C) for _ in range(4))

    def forward(self, x, memory=None):
        memory = x if memory is None else memory
        q, k, v = (
            m(t).unflatten(-1, (H, -1)).transpose(1, 2) for m, t in ((self.q, x), (self.k, memory), (self.v, memory))
        )
        y = F.scaled_dot_product_attention(q, k, v)
        return self.out(y.transpose(1, 2).flatten(2))


class MLP(nn.Sequential):
    def __init__(self):
        super().__init__(nn.Linear(C, 48), nn.GELU(), nn.Linear(48, C))


class Scripted(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = torch.jit.trace(MLP(), torch.randn(2, 5, C))

    def forward(self, x):
        return self.inner(x)


class Double(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return 2 * x

    @staticmethod
    def backward(ctx, g):
        return 2 * g


class HandRMS(nn.Module):
    def __init__(self):
        super().__init__()
        self.g = nn.Parameter(torch.ones(C))

    def forward(self, x):
        return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6) * (1 + self.g)


class Net(nn.Module):
    """Pre-LN: a block is ``step(x, attention, norm 1, mlp, norm 2, i)``, given by the case."""

    def __init__(self, step, norm=lambda: nn.LayerNorm(C), mlp=MLP, final=True, before=None, after=None):
        super().__init__()
        self.embed, self.place = nn.Embedding(V, C), nn.Parameter(torch.randn(64, C))
        self.at = nn.ModuleList(Attention() for _ in range(LAYERS))
        self.ff = nn.ModuleList(mlp() for _ in range(LAYERS))
        self.n1, self.n2 = (nn.ModuleList(norm() for _ in range(LAYERS)) for _ in range(2))
        self.gamma = nn.Parameter(torch.randn(LAYERS, C))
        self.final = norm() if final else nn.Identity()
        self.head = nn.Linear(C, V)
        self.step, self.before, self.after = step, before, after

    def forward(self, ids):
        x = self.embed(ids) + self.place[: ids.shape[1]]
        x = self.before(self, x) if self.before else x
        for i in range(LAYERS):
            x = self.step(self, x, i)
        logits = self.head(self.final(x))
        return self.after(logits) if self.after else logits


def plain(net, x, i):
    x = x + net.at[i](net.n1[i](x))
    return x + net.ff[i](net.n2[i](x))


def written_first(net, x, i):
    x = net.at[i](net.n1[i](x)) + x
    return torch.add(net.ff[i](net.n2[i](x)), x)


def in_place(net, x, i):
    x += net.at[i](net.n1[i](x))
    x += net.ff[i](net.n2[i](x))
    return x


def in_place_method(net, x, i):
    x.add_(net.at[i](net.n1[i](x)))
    return x.add_(net.ff[i](net.n2[i](x)))


def subtracted(net, x, i):
    x = x - net.at[i](net.n1[i](x))
    return torch.add(x, net.ff[i](net.n2[i](x)), alpha=0.5)


def parallel(net, x, i):
    y = net.n1[i](x)
    return x + net.at[i](y) + net.ff[i](y)


def parallel_sum(net, x, i):
    y = net.n1[i](x)
    return (net.at[i](y) + net.ff[i](y)) + x


def parallel_in_place(net, x, i):
    y = net.n1[i](x)
    write = net.ff[i](y)
    write += net.at[i](y)
    return write + x


def layer_scale(net, x, i):
    x = x + net.gamma[i] * net.at[i](net.n1[i](x))
    return x + net.ff[i](net.n2[i](x)) * 0.7


def post_norm(net, x, i):
    x = net.n1[i](x + net.at[i](x))
    return net.n2[i](x + net.ff[i](x))


def deep_norm(net, x, i):
    x = net.n1[i](x * 1.3 + net.at[i](x))
    return net.n2[i](x * 1.3 + net.ff[i](x))


def sandwich(net, x, i):
    x = x + net.n1[i](net.at[i](net.n2[i](x)))
    return x + net.ff[i](x)


def checkpointed(net, x, i):
    return checkpoint(lambda t: plain(net, t, i), x, use_reentrant=False)


def looped(net, x, i):
    return plain(net, x, 0)


def own_function(net, x, i):
    x = x + Double.apply(net.at[i](net.n1[i](x)))
    return x + net.ff[i](net.n2[i](x))


# -- what is no sum of writes -----------------------------------------------------------------------------------------
def slice_written(net, x, i):
    x = x + net.at[i](net.n1[i](x))
    x[:, 2:5] = x[:, 2:5] + net.ff[i](net.n2[i](x[:, 2:5]))
    return x


def highway(net, x, i):
    gate = torch.sigmoid(net.gamma[i])
    x = gate * x + (1 - gate) * net.at[i](net.n1[i](x))
    return x * torch.sigmoid(x) + net.ff[i](net.n2[i](x))


def fused(net, x, i):
    x = torch.addcmul(x, net.gamma[i], net.at[i](net.n1[i](x)))
    return torch.addcmul(x, net.gamma[i], net.ff[i](net.n2[i](x)))


def stacked(net, x, i):
    x = torch.stack([x, net.at[i](net.n1[i](x))]).sum(0)
    return torch.stack([x, net.ff[i](net.n2[i](x))]).sum(0)


def whole_block(net, x, i):
    return x + plain(net, x, i) if i == 1 else plain(net, x, i)


def mixed(net, x, i):
    x = x + net.ff[i](net.at[i](net.n1[i](x)))
    return x + net.ff[i](net.n2[i](x))


def no_attention(net, x, i):
    return x + net.ff[i](net.n2[i](x))


def hidden_write(net, x, i):
    """Between the blocks something is added that no operation of torch's shows as an addition."""
    x = plain(net, x, i)
    return torch.stack([x, net.ff[i](x)]).sum(0) if i == 1 else x


def disturbed(net, seed=0):
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in net.parameters():
            p += 0.1 * torch.randn(p.shape, generator=generator)
    return net.eval().requires_grad_(False)


def made(step, **options):
    torch.manual_seed(0)
    return disturbed(Net(step, **options))


def ids(batch=2, length=14, seed=3):
    return {"ids": torch.randint(0, V, (batch, length), generator=torch.Generator().manual_seed(seed))}
