"""The ground floor: units, text, sums, threads, checked files and whole output."""
