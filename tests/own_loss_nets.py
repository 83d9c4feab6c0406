"""Nets of PyTorch that refmaml has no layers for, and batches for them."""

import torch
import torch.nn.functional as F
from torch import nn

TASKS, SUPPORT, QUERY, CLASSES = 3, 7, 11, 5
DOUBLE = torch.float64


class ResidualNet(nn.Module):
    """Convolutions with group norm, GELU and a sum."""

    shape = (1, 8, 8)

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Conv2d(1, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)
        self.norm1, self.norm2 = nn.GroupNorm(2, 4), nn.GroupNorm(2, 4)
        self.head = nn.Linear(4, CLASSES)

    def forward(self, x):
        h = F.gelu(self.norm1(self.first(x)))
        return self.head((h + F.gelu(self.norm2(self.second(h)))).mean((2, 3)))


class Recurrent(nn.Module):
    """An LSTM."""

    shape = (4, 3)

    def __init__(self):
        super().__init__()
        self.rnn, self.head = nn.LSTM(3, 6, batch_first=True), nn.Linear(6, CLASSES)

    def forward(self, x):
        return self.head(self.rnn(x)[0][:, -1])


class Attention(nn.Module):
    """Attention in plain operations, with layer norm."""

    shape = (4, 3)

    def __init__(self):
        super().__init__()
        self.q, self.k, self.v = nn.Linear(3, 4), nn.Linear(3, 4), nn.Linear(3, 4)
        self.norm, self.head = nn.LayerNorm(4), nn.Linear(4, CLASSES)

    def forward(self, x):
        q, k, v = self.q(x), self.k(x), self.v(x)
        h = torch.softmax(q @ k.transpose(-1, -2) / k.shape[-1] ** 0.5, -1) @ v
        return self.head(self.norm(h).mean(1))


NETS = {"residual": ResidualNet, "lstm": Recurrent, "attention": Attention}


def seeded(name):
    """(module, batch) of a net, from a seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = NETS[name]()
        shape = NETS[name].shape
        with torch.no_grad():  # away from norms' constant start, where arrays are alike
            for p in net.parameters():
                p += 0.1 * torch.randn(p.shape)
        batch = (
            torch.randn(TASKS, SUPPORT, *shape, dtype=DOUBLE),
            torch.randint(0, CLASSES, (TASKS, SUPPORT)),
            torch.randn(TASKS, QUERY, *shape, dtype=DOUBLE),
            torch.randint(0, CLASSES, (TASKS, QUERY)),
        )
    return net, batch
