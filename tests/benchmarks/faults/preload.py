"""Imports what commands import, so that forked ones need not."""

from importlib import import_module

import matplotlib.backends.backend_agg
import matplotlib.backends.backend_svg
import matplotlib.figure  # noqa: F401
import zarr  # noqa: F401
from pydantic import AfterValidator, Field, TypeAdapter  # noqa: F401 (pydantic loads them late)

import ooc_train.inference.predict
import ooc_train.monitoring.evaluation_page
import ooc_train.runtime.cluster
import ooc_train.runtime.job
import ooc_train.store.jobs.append
import ooc_train.store.jobs.ingest
import ooc_train.store.jobs.rechunk
import ooc_train.store.jobs.shuffle
import ooc_train.store.jobs.split
import ooc_train.store.jobs.verify
import ooc_train.training.loop  # noqa: F401
from ooc_train import cli

for _name in sorted(set(cli._MODULES.values())):
    import_module(f"ooc_train.cli.{_name}")
