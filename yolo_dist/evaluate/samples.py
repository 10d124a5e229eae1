"""What an evaluation leaves behind: its metrics as JSON, and a few images with true and detected boxes."""

from pathlib import Path

import cv2
import numpy as np
from upath import UPath

from yolo_dist.data.drawing import draw_boxes, outline
from yolo_dist.data.image import decode_image
from yolo_dist.data.mixture import Images, first_of_each
from yolo_dist.evaluate.evaluator import Evaluation
from yolo_dist.storage import publish_folder

EVALUATION_FILE, SAMPLES_FOLDER = "evaluation.json", "samples"
SAMPLE_IMAGES = 6
SHOWN_SCORE = 0.25


def save_evaluation(evaluation: Evaluation, shards: Images, folder: UPath) -> None:
    """Write `evaluation.json` and `samples/*.jpg` into `folder`, completely or not at all."""
    with publish_folder(folder, last=EVALUATION_FILE) as local:
        (local / EVALUATION_FILE).write_text(evaluation.metrics.model_dump_json(indent=2, exclude_defaults=True))
        _draw_samples(evaluation, shards, local / SAMPLES_FOLDER)


def _draw_samples(evaluation: Evaluation, shards: Images, folder: Path) -> None:
    folder.mkdir()
    for number in first_of_each(shards, SAMPLE_IMAGES):
        sample, detections = shards[number], evaluation.detections[number]
        shown = detections.scores >= SHOWN_SCORE
        image = draw_boxes(
            outline(decode_image(sample.image, source=sample.image_id), sample.boxes.xyxy),
            detections.xyxy[shown],
            detections.labels[shown],
            shards.classes,
            detections.scores[shown],
        )
        pixels = cv2.cvtColor(np.ascontiguousarray(image), cv2.COLOR_RGB2BGR)
        # not by cv2.imwrite, which is silent about a full disk
        (folder / f"{number:03d}.jpg").write_bytes(cv2.imencode(".jpg", pixels)[1].tobytes())
