"""Boltzmann densities: flows that draw equilibrium configurations, and weights that make their averages exact."""
