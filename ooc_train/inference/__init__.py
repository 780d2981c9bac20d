"""Predictions and metrics, out of core: of stores, arrays and raw files."""
