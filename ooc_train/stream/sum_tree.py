"""Sums added up in a fixed order, whatever the order in which they arrive.

The sums of partition groups are the leaves of a binary tree that is aligned on powers of two. Two
siblings are added as soon as both have arrived. So the layout of the data alone decides the
additions, and the bits of the total.
"""

from collections.abc import Mapping

from ooc_train.core.sums import Sums, add_into

Node = tuple[int, int]
"""Level and index of a node: it covers `2**level` partition groups, from `index * 2**level` on."""


class SumTree:
    """A binary tree of sums, of which only nodes without a sibling are held."""

    def __init__(self, nodes: Mapping[Node, Sums] | None = None) -> None:
        self.nodes: dict[Node, Sums] = dict(nodes or {})

    def put(self, node: Node, sums: Sums) -> None:
        """Add a node. The tree owns its sums from then on, and may change them in place."""
        level, index = node
        while (level, index ^ 1) in self.nodes:
            # Addition commutes bit by bit, so the order of two siblings doesn't matter.
            sums = add_into(self.nodes.pop((level, index ^ 1)), sums)
            level, index = level + 1, index >> 1
        self.nodes[level, index] = sums

    def complete(self) -> tuple[int, dict[Node, Sums]]:
        """Return how many groups are there from the first on, without a gap, and their nodes."""
        groups, nodes = 0, {}
        for level, index in sorted(self.nodes, key=lambda node: node[1] << node[0]):
            if index << level != groups:
                break
            nodes[level, index] = self.nodes[level, index]
            groups += 1 << level
        return groups, nodes

    def total(self) -> Sums | None:
        """Return the sum of all nodes, the smallest first, or None for an empty tree.

        Which nodes remain at the end depends on the number of partition groups alone.
        """
        total: Sums | None = None
        for _, sums in sorted(self.nodes.items(), key=lambda item: item[0][0]):
            total = sums if total is None else add_into(sums, total)
        return total
