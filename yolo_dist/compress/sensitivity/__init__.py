"""Sensitivity: what each layer can lose, measured one layer at a time and for all of them together."""
