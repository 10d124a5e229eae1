"""A proof as people read it: what changed, in rows and sentences, and the page beside `proof.json`."""

from collections.abc import Iterable, Sequence

from yolo_dist.compress.pruning.proof import Proof

COLUMNS = ("", "before", "after", "left")


def change_rows(proof: Proof) -> list[tuple[str, str, str, str]]:
    """One row a quantity, under `COLUMNS`."""
    changes = (
        ("parameters", proof.parameters, 0),
        ("MACs", proof.macs, 0),
        ("bytes of weights", proof.weight_bytes, 0),
        ("latency ms", proof.latency_ms, 2),
        ("mAP50", proof.map50, 3),
    )
    return [
        (
            name,
            f"{change.before:,.{places}f}",
            f"{change.after:,.{places}f}",
            f"{change.after / change.before:.1%}" if change.before else "–",
        )
        for name, change, places in changes
        if change is not None
    ]


def sentences(proof: Proof) -> list[str]:
    """What the numbers of a proof say, one line each."""
    rounding = f"; float32 rounds such outputs by up to {proof.float32_difference:.1e}"
    found = [
        f"masked and compact network differ by {proof.max_abs_difference:.1e} in {proof.precision} on {proof.images} "
        f"images (at most {proof.tolerance:g} is allowed)" + (rounding if proof.precision == "float64" else ""),
        f"{proof.speed_up:.2f} × as fast with {proof.macs.before / proof.macs.after:.2f} × fewer operations: "
        f"{proof.share_of_ideal:.0%} of the ideal speed-up",
    ]
    if proof.target_latency_ms is not None and proof.latency_ms.after > proof.target_latency_ms:
        found.append(
            f"measured once more, its latency is {proof.latency_ms.after:.2f} ms, over target_latency_ms "
            f"{proof.target_latency_ms:g}: latencies are noisy; prune again on a quiet machine, or to a lower target"
        )
    return found


def as_markdown(proof: Proof) -> str:
    """The page: what changed, what it says, and channels before and after of every convolution that lost some."""
    layers = [(str(one["layer"]), f"{one['before']:,}", f"{one['after']:,}") for one in proof.channels]
    parts = [
        f"# Pruned by {proof.method} at percent {proof.percent:g}",
        _table(COLUMNS, change_rows(proof)),
        "\n".join(f"- {sentence}" for sentence in sentences(proof)),
        "Channels of the convolutions that lost some; 0 are left of one that went with its layer.",
        _table(("layer", "before", "after"), layers),
    ]
    return "\n\n".join(parts) + "\n"


def _table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    ruler = [":--", *["--:"] * (len(columns) - 1)]
    return "\n".join(f"| {' | '.join(row)} |" for row in (columns, ruler, *rows))
