"""Processes: what they need to start, how they end, and what is known when they do."""
