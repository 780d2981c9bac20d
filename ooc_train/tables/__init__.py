"""Raw tables, and how their columns become features: CSV and Parquet, knowing no Zarr."""

RECIPE_FILE = "recipe.json"
"""Where a run folder keeps the recipe; here, since finding it takes no Arrow."""
