"""Campaigns of simulated spectra that say how far each statistic can be trusted."""
