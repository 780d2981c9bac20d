"""Finding arrays at paths and URLs, by any writer of Zarr."""
