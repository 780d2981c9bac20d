"""Solvers: each asks for passes over the rows and is told sums or states; it reads no rows."""
