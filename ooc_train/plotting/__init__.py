"""Plots, described by what they draw, and as files."""

from ooc_train.plotting import plots as plots
