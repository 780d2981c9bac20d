"""Out-of-core training at any batch size, under a memory ceiling, on Zarr and Dask.

Public names are those of the stub beside this file, ``__init__.pyi``. Each is imported when it is
first asked for: a worker or the command line pays for what it uses.
"""

import sys

import lazy_loader

__version__ = "0.1.0"

if sys.platform == "win32":
    raise ImportError("ooc_train needs Linux, or macOS with fewer guarantees; on Windows use WSL")

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
