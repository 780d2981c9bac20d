"""Format of a store on disk: layouts, metadata, identities and checksums."""
