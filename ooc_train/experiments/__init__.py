"""Fits side by side: the trade-off of batch sizes, and the demo."""
