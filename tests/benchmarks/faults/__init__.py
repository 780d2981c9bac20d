"""Faults on purpose: what commands do when they are killed, raced, starved and lied to.

Each file holds one kind of fault, or a few that are alike; `__main__` runs them in turn and counts
what came of them. A case is made from its kind and a seed alone, so it can be repeated alone.
"""
