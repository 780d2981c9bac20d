"""Jobs on whole stores: ingest, rechunk, shuffle, and synthetic data."""
