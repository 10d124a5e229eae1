"""What lies where in a run's folder, for who writes it and who reads it."""

RECIPE_FILE = "recipe.yaml"
"""The recipe as resolved."""
RESULTS_FILE = "results.json"
"""One object a stage."""
METRICS_FILE = "metrics.jsonl"
"""One line an epoch."""
REPORT_FILE = "report.html"
STAGE_FILE = "stage.json"
"""In a stage's folder: its cache key and its result; marks the folder as complete."""
WORK_FOLDER, CHECKPOINTS_FOLDER = "work", "checkpoints"
UNFINISHED = (WORK_FOLDER, CHECKPOINTS_FOLDER)
"""Folders of what is not finished; gone once it is."""
