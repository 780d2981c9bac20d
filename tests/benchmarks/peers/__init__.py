"""ooc_train against libraries that people would use otherwise; `__main__.py` runs it."""
