"""Imports what commands import, so that forked ones need not."""

import matplotlib.backends.backend_agg
import matplotlib.backends.backend_svg
import matplotlib.figure  # noqa: F401
import pydantic  # noqa: F401
import zarr  # noqa: F401
