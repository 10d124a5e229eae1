"""One self-contained HTML page a run: what it achieved, stage by stage, with figures and pictures."""

from yolo_dist.report.page import build_report

__all__ = ["build_report"]
