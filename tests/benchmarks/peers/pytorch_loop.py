"""A PyTorch loop over slabs of a Zarr array: a linear layer, batches of 256, plain SGD.

The rate is what suits one pass of 2M rows; Adam, momentum, fused and foreach steps and scaled
columns were no faster to the same loss. Rows lie in random order, so none are permuted. One thread:
a batch is too small for two.
"""

from collections.abc import Iterator
from contextlib import ExitStack
from itertools import count

import numpy as np
import torch

from tests.benchmarks.peers.contest import Contestant, Data, Step, slabs

_BATCH_ROWS = 256
_RATE = 0.015


def start(data: Data, folder: str, stack: ExitStack) -> Contestant:
    """Return the contestant; there is nothing to start."""
    stack.callback(torch.set_num_threads, torch.get_num_threads())
    torch.set_num_threads(1)

    def train() -> Iterator[Step]:
        torch.manual_seed(0)
        model = torch.nn.Linear(data.store.n_features, 1)
        optimizer = torch.optim.SGD(model.parameters(), lr=_RATE)
        loss_of = torch.nn.BCEWithLogitsLoss()
        for passes in count(1):
            for X, y in slabs(data.store):
                Xs = torch.from_numpy(X).split(_BATCH_ROWS)
                ys = torch.from_numpy(y.astype(np.float32)).split(_BATCH_ROWS)
                for X_batch, y_batch in zip(Xs, ys, strict=True):
                    optimizer.zero_grad()
                    loss_of(model(X_batch).squeeze(1), y_batch).backward()
                    optimizer.step()
            weight = model.weight.detach().numpy()[0].astype(np.float64)
            yield Step(weight, model.bias.item(), passes)

    return Contestant(train)
