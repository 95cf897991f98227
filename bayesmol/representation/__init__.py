"""How a structure becomes a vector."""
