"""Models: problems as named sums over rows, predictors, and settings."""
