"""Monitoring of runs: progress, records, the Training page, and interrupts."""
