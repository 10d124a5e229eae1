"""Training: targets, loss, optimizer, the loop, and its Ray Train driver."""
