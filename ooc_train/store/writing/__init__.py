"""Writing of stores: chunks, shards and the commit."""
