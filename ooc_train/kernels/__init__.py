"""Compiled loops over rows, as functions of arrays: the only room that knows LLVM."""
