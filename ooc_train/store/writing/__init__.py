"""Rows into stores: chunks, shards, and the commit."""
