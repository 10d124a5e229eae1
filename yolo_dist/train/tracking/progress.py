"""An epoch as the person who watches reads it."""

from typing import Any

from yolo_dist.compress.sparsity import describe_gauge


def describe(stage: str, line: dict[str, Any]) -> str:
    """One epoch as a line of text."""
    loss = line["loss"]
    left = line["seconds_left"]
    parts = [
        f"{stage}  epoch {line['epoch']}/{line['epochs']}",
        f"loss {loss['total']:.3f} ({', '.join(f'{name} {loss[name]:.3f}' for name in loss if name != 'total')})",
        f"lr {line['learning_rate']:.5f}",
        f"{line['images_per_second']:.0f} images/s",
        f"{int(left // 60)}:{int(left % 60):02d} left",
    ]
    if "map50" in line:
        parts.append(f"mAP50 {line['map50']:.3f}, mAP {line['map']:.3f}")
    for name, own in line.get("sources", {}).items():
        parts.append(f"{name} {own['map50']:.3f}")
    if "gauge" in line:
        parts.append(describe_gauge(line["gauge"]))
    return "  ".join(parts)
