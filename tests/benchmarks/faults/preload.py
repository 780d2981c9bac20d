"""Imports what commands import, so that forked ones need not."""

import matplotlib.backends.backend_agg
import matplotlib.backends.backend_svg
import matplotlib.figure  # noqa: F401
import pydantic  # noqa: F401
import zarr  # noqa: F401

import ooc_train.cli
import ooc_train.cluster
import ooc_train.planning
import ooc_train.predict
import ooc_train.scoring
import ooc_train.store.ingest
import ooc_train.store.made
import ooc_train.store.rechunk
import ooc_train.store.shuffle
import ooc_train.tradeoff
import ooc_train.train
import ooc_train.watching.page  # noqa: F401
