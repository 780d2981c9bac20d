"""Data at rest: stores on disk, and how they are opened, read and written."""
