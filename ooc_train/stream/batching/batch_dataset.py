"""Batches as tensors, and as a data set of PyTorch's `DataLoader`."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Protocol, Self

import torch
from torch.utils.data import IterableDataset, get_worker_info

_EPOCHS = 2**62
"""Numbers of epochs, which a `DataLoader` of workers draws at random."""


class SharedBatches(Protocol):
    """Batches of which workers take shares."""

    def __len__(self) -> int:
        """Return the batches of an epoch."""

    def __iter__(self) -> Iterator[tuple[Any, ...]]:
        """Return the batches of the next epoch."""

    def share(self, worker: int, workers: int) -> Self:
        """Return one worker's share."""

    def state_dict(self) -> dict[str, Any]:
        """Return where the loop is."""

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a state."""


def as_tensors(arrays: Iterable[Any]) -> tuple[Any, ...]:
    """Return tensors that share the memory of arrays; tensors stay as they are."""
    return tuple(map(torch.as_tensor, arrays))


class BatchDataset(IterableDataset):  # type: ignore[misc] # torch has no types here
    """Batches for ``DataLoader(dataset, batch_size=None)``.

    Parameters
    ----------
    batches : Batches
        The batches. A worker of the `DataLoader` takes its share of them.
    """

    def __init__(self, batches: SharedBatches) -> None:
        super().__init__()
        self._batches = batches
        self._iterations = 0

    def __len__(self) -> int:
        """Return the batches of an epoch in one process; of several workers, the least number.

        Raises
        ------
        TypeError
            If the batches are a share of those of an epoch.
        """
        return len(self._batches)

    def __iter__(self) -> Iterator[tuple[Any, ...]]:
        """Return the batches of an epoch: tensors, which are copies in a worker.

        A worker does not know how many epochs there were before. All workers know one random number
        that their `DataLoader` drew for them, and that is the number of the epoch.
        """
        info = get_worker_info()
        if info is None:
            return map(as_tensors, self._batches)
        batches = self._batches.share(info.id, info.num_workers)
        epoch = (info.seed - info.id + self._iterations) % _EPOCHS
        batches.load_state_dict(batches.state_dict() | {"epoch": epoch, "batch": 0})
        self._iterations += 1
        # A worker's tensors wait in a queue, while the next ones are made.
        return (tuple(each.clone() for each in as_tensors(batch)) for batch in batches)
