"""The distillation terms once more, one number at a time: slow, plain, and without a tensor operation."""

import math

from yolo_dist.compress.distillation.strategy import Comparison
from yolo_dist.darknet.heads import Head

Row = list[float]


def divergence(student: Row, teacher: Row, temperature: float) -> float:
    """T² · KL(teacher ‖ student) of one row."""
    ours, theirs = (softmax([value / temperature for value in row]) for row in (student, teacher))
    return temperature**2 * sum(q * math.log(q / p) for p, q in zip(ours, theirs, strict=True) if q > 0)


def softmax(values: Row) -> Row:
    largest = max(values)
    powers = [math.exp(value - largest) for value in values]
    return [power / sum(powers) for power in powers]


def divergence_of_rows(batch: Comparison, first: int) -> float:
    """Over all cells of all heads, of the columns from `first` on, divided by the images."""
    total = 0.0
    for student, teacher in zip(batch.student.raws, batch.teacher.raws, strict=True):
        rows = zip(student.flatten(0, 3).tolist(), teacher.flatten(0, 3).tolist(), strict=True)
        total += sum(divergence(ours[first:], theirs[first:], batch.temperature) for ours, theirs in rows)
    return total / batch.images


def predicted(head: Head, row: Row, anchor: int) -> Row:
    """A raw row as a box in cells: centre from the corner of its cell, width, height."""
    scale = head.scale_x_y
    centre = [scale / (1 + math.exp(-value)) - (scale - 1) / 2 for value in row[:2]]
    return centre + [math.exp(row[2 + side]) * float(head.anchors[anchor][side]) / head.stride for side in (0, 1)]


def distance(a: Row, b: Row) -> float:
    return sum((x - y) ** 2 for x, y in zip(a, b, strict=True))


def box_distances(batch: Comparison) -> list[tuple[float, float, float]]:
    """For each match: student to truth, teacher to truth, student to teacher."""
    found = []
    for number, match in enumerate(batch.matches):
        head = batch.student.heads[number]
        for pair in range(len(match.image)):
            image, anchor = int(match.image[pair]), int(match.anchor[pair])
            column, row = match.cell[pair].tolist()
            left, top, right, bottom = (value / head.stride for value in match.boxes[pair].tolist())
            truth = [(left + right) / 2 - column, (top + bottom) / 2 - row, right - left, bottom - top]
            ours = predicted(head, batch.student.raws[number][image, anchor, row, column].tolist(), anchor)
            other = batch.teacher.heads[number]
            theirs = predicted(other, batch.teacher.raws[number][image, anchor, row, column].tolist(), anchor)
            found.append((distance(ours, truth), distance(theirs, truth), distance(ours, theirs)))
    return found


def marked_cells(batch: Comparison, image: int, height: int, width: int) -> set[tuple[int, int]]:
    """Row and column of the cells of a map that overlap a matched object's cell of a head."""
    marked = set()
    for raw, match in zip(batch.student.raws, batch.matches, strict=True):
        rows, columns = raw.shape[2:4]
        for pair in range(len(match.image)):
            if int(match.image[pair]) != image:
                continue
            column, row = match.cell[pair].tolist()
            for y in range(height):
                for x in range(width):
                    down = y / height < (row + 1) / rows and (y + 1) / height > row / rows
                    across = x / width < (column + 1) / columns and (x + 1) / width > column / columns
                    if down and across:
                        marked.add((y, x))
    return marked


def divergence_of_attention(batch: Comparison, at_objects: bool) -> float:
    total = 0.0
    for ours, theirs in zip(batch.student.attention, batch.teacher.attention, strict=True):
        for image in range(len(ours)):
            height, width = ours.shape[1:]
            marked = marked_cells(batch, image, height, width)
            rows = [
                [
                    maps[image][y][x] if not at_objects or (y, x) in marked else 0.0
                    for y in range(height)
                    for x in range(width)
                ]
                for maps in (ours.tolist(), theirs.tolist())
            ]
            total += divergence(rows[0], rows[1], batch.temperature)
    return total / batch.images
