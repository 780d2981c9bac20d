"""Plots, described by what they draw, and as files."""
