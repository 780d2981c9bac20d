"""Processes of a job: how they start, what they may hold, how they end."""
