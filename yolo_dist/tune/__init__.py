"""Search over recipes with Ray Tune: spaces, trials that share what they have in common, and what came out."""
