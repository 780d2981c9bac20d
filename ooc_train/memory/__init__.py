"""What a run may hold, is expected to hold, and did hold, in bytes of memory."""
