"""Data at rest: the layout of a store on disk, and chunks read into buffers."""
