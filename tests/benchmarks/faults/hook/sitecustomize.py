"""Imported by a Python that starts with this folder on its path: sets a hook, if asked to."""

from tests.benchmarks.faults.hooks import from_environment

from_environment()
