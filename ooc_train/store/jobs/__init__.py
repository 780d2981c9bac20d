"""Work on whole stores: ingest, rechunk, shuffle, and synthetic data."""
