"""Data in flight: the plan, the order of rows, the buffers, and the three passes."""
