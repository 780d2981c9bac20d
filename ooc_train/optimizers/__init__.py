"""How a gradient becomes a step of the parameters."""
