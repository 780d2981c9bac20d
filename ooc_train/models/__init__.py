"""What is learned: named sums over rows, knowing no Dask and no Zarr."""
