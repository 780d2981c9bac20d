"""The loop around a solver: by passes over a data set, or block by block."""
