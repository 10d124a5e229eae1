"""Original files to shards."""
