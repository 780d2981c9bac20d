"""How much memory a run may hold, is expected to hold, and did hold."""
