"""Batches for a loop of one's own."""
