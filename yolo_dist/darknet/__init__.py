"""The network: Darknet cfg and weights files, and the torch modules they describe."""
