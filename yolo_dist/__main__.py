"""`python -m yolo_dist`."""

from yolo_dist.cli import main

main()
