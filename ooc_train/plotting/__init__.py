"""Plots of runs, on axes and as files."""

from ooc_train.plotting import plots as plots
