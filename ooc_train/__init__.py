"""Out-of-core training at any batch size, under a memory ceiling, on Zarr and Dask."""
