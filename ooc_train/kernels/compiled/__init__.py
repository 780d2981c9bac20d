"""What the loops of `kernels` are compiled from, by numba, in a process that ends with that.

``python -m ooc_train.kernels.compiled float32 FILE`` compiles them for one type of X. Nothing else
imports this: numba and its first function hold 140 MB and take 0.8 s in every process that does,
and what they made needs none of it.
"""
