"""Chunks into buffers: straight from local files, or through zarr-python."""
