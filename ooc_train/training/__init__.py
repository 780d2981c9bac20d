"""Training: the loop around a solver, on a whole data set or block by block."""
