"""Modules of PyTorch for tests, in a file that workers load quickly."""

from typing import Any

import torch

nn: Any = torch.nn

FEATURES, CLASSES = 6, 3

# As workers have, so that batches have the same bits in this process: threads that start from now
# on take over this number.
torch.set_num_threads(1)


class Net(nn.Module):  # type: ignore[misc] # torch has no types here
    """Two layers."""

    def __init__(self, hidden=8, outputs=CLASSES, features=FEATURES):
        super().__init__()
        self.hidden, self.out = nn.Linear(features, hidden), nn.Linear(hidden, outputs)

    def forward(self, rows):
        return self.out(torch.tanh(self.hidden(rows)))


class Modes(Net):
    """Layers that depend on the batch, and on random numbers."""

    def __init__(self):
        super().__init__()
        self.norm, self.drop = nn.BatchNorm1d(8), nn.Dropout(0.3)

    def forward(self, rows):
        return self.out(self.drop(self.norm(torch.tanh(self.hidden(rows)))))


class Affine(nn.Module):  # type: ignore[misc] # torch has no types here
    """One layer, whose last axis may be left out."""

    def __init__(self, outputs=1, *, flat=False):
        super().__init__()
        self.out, self.flat = nn.Linear(FEATURES, outputs), flat

    def forward(self, rows):
        return self.out(rows)[:, 0] if self.flat else self.out(rows)


class PixelNet(nn.Module):  # type: ignore[misc] # torch has no types here
    """Two layers for images of 4 x 5 pixels and 3 channels."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(60, 7), nn.Tanh(), nn.Linear(7, 2))

    def forward(self, rows):
        return self.layers(rows)


class Strided(nn.Module):  # type: ignore[misc] # torch has no types here
    """One layer of every eighth pixel of images of 56 x 56 pixels, for ten classes."""

    def __init__(self):
        super().__init__()
        self.out = nn.Linear(49, 10)

    def forward(self, rows):
        return self.out(rows[:, ::8, ::8].flatten(1))
