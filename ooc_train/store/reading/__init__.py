"""Reading of chunks into buffers: from local files, or through zarr-python."""
