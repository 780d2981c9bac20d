"""How a store lies on disk: arrays, metadata, identities and checksums."""
