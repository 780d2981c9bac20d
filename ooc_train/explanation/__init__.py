"""What a model learned: standard errors, importance of columns, partial dependence."""
