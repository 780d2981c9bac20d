"""Watching runs: progress, records, the Training page, and how they are interrupted."""
