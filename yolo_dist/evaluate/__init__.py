"""How good a network is, how fast, and what it finds."""
