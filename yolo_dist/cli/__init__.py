"""The command line: commands parse, call and print; the work is done elsewhere."""

from yolo_dist.cli.app import main

__all__ = ["main"]
