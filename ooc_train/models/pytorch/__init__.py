"""Modules of PyTorch as models, problems, updates and predictors."""
