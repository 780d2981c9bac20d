"""Opening of stores and arrays of any Zarr writer, at paths and URLs."""
