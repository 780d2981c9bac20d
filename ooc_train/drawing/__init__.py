"""Plots, described by what they draw, and as files."""

from ooc_train.drawing import plots as plots
