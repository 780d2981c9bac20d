"""Raw tables, and how their columns become features: CSV and Parquet, knowing no Zarr."""
