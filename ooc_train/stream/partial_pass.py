"""What is done of a request's passes, from which another process runs the rest, to the same bits.

Of sums, the nodes of the tree over the partition groups that are complete from the first on: at
most the logarithm of their number. Of an epoch, the states of the replicas after some shuffle
groups, at a point where tasks end: after a segment, or after a round of several replicas.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ooc_train.core.sums import Sums
from ooc_train.stream.sum_tree import Node

_SCALAR = "()"
"""The end of the name of an array without a dimension, which is written with one."""


@dataclass(frozen=True, eq=False)
class PartialPass:
    """What is done of the passes that a request asks for.

    Attributes
    ----------
    position : int
        Partition groups of the pass under way that are added up, or shuffle groups of an epoch.
    rows : int
        Rows read for that, and for the passes before it, that count as rows of training.
    sums : tuple of Sums
        Of a request of several sums, those that are complete.
    nodes : mapping of nodes to Sums
        The tree over the first `position` partition groups.
    states : tuple of Sums
        The states of the replicas after the first `position` shuffle groups; empty for sums.
    added : mapping of nodes to Sums
        The nodes of all partition groups that are in, beyond gaps too; checkpoints keep them not.
    in_task : bool
        Whether the states are those in the middle of a task, whose counts, sums and average alone
        are up to date; no process can go on from them.
    """

    position: int
    rows: int
    sums: tuple[Sums, ...] = ()
    nodes: Mapping[Node, Sums] = field(default_factory=dict)
    states: tuple[Sums, ...] = ()
    added: Mapping[Node, Sums] = field(default_factory=dict)
    in_task: bool = False

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """Return all of it as arrays by name, from which `from_arrays` makes it."""
        named = {f"sums/{i}": each for i, each in enumerate(self.sums)}
        named |= {f"nodes/{level}-{at}": each for (level, at), each in self.nodes.items()}
        named |= {f"states/{i}": each for i, each in enumerate(self.states)}
        arrays = {"position": np.asarray(self.position), "rows": np.asarray(self.rows)}
        for owner, sums in named.items():
            for name, array in sums.items():
                key = f"{owner}/{name}"
                arrays[key if array.ndim else key + _SCALAR] = np.atleast_1d(array)
        return arrays

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> "PartialPass":
        """Make it from arrays of `to_arrays`.

        Raises
        ------
        KeyError, ValueError
            If arrays are missing, or have other names.
        """
        found: dict[str, dict[str, Sums]] = {"sums": {}, "nodes": {}, "states": {}}
        for key, array in arrays.items():
            if "/" in key:
                kind, owner, name = key.split("/", 2)
                if name.endswith(_SCALAR):
                    name, array = name.removesuffix(_SCALAR), array.reshape(())
                found[kind].setdefault(owner, {})[name] = array
        nodes = {}
        for node, sums in found["nodes"].items():
            level, at = node.split("-")
            nodes[int(level), int(at)] = sums
        return cls(
            int(arrays["position"]),
            int(arrays["rows"]),
            tuple(found["sums"][f"{i}"] for i in range(len(found["sums"]))),
            nodes,
            tuple(found["states"][f"{i}"] for i in range(len(found["states"]))),
        )
