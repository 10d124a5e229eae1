"""Smallest YOLOv3/v4 detectors that keep their accuracy, trained and pruned on a Ray cluster."""
