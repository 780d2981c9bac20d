"""What is minimised, row by row: losses of the linear predictor, and the scaling of columns."""
