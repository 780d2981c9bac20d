"""The product of matrices of the BLAS that NumPy has loaded, for kernels that call it.

Kernels hold no lock of Python while they compute. A layer of a network is a product and a loop over
its result; by NumPy each would be a call, between which threads of one process wait for the lock.
"""

import ctypes
from functools import cache
from itertools import product
from typing import Any

import numpy as np

from ooc_train.core.threads import blas_libraries

_PREFIXES, _SUFFIXES = ("", "scipy_"), ("", "64_", "_64")
"""What builds of BLAS put around the names of functions, as threadpoolctl knows them."""


@cache
def gemm(dtype: np.dtype[Any]) -> int | None:
    """Return the address of `cblas_sgemm` or `cblas_dgemm`; None if no library is known to have it.

    NumPy's own library is taken before others.
    """
    letter = "s" if dtype == np.float32 else "d"
    for library in sorted(blas_libraries(), key=lambda each: "numpy" not in each.filepath):
        for prefix, suffix in product(_PREFIXES, _SUFFIXES):
            function = getattr(library.dynlib, f"{prefix}cblas_{letter}gemm{suffix}", None)
            if function is not None:
                return ctypes.cast(function, ctypes.c_void_p).value
    return None
