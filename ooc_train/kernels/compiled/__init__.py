"""The sources of the loops of `kernels`, which numba compiles in a process of its own.

``python -m ooc_train.kernels.compiled float32`` compiles kernels for one type of X. No other code
imports this folder: numba and its first function hold 140 MB in a process, and take 0.8 s. The
compiled loops need neither.
"""
