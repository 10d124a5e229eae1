"""Where a detector's backbone ends, and which layers have a part in what it detects, found in its graph."""

from yolo_dist.darknet.cfg import Cfg, Upsample, Yolo, sources


def backbone(cfg: Cfg) -> list[int]:
    """The layers of the backbone, ascending.

    It ends at the deepest layer (that depends on most others) on which all heads depend and that no enlarged map has
    reached: up to there the network is one trunk, behind it maps of several scales are joined. All that this layer
    depends on belongs to the backbone, the convolutions that feed the heads never do. A pyramid pooling in the trunk
    does, and so do the first convolutions of a detection block before its branches part.

    Raises:
        CfgError: another layer than a convolution feeds a head.
    """
    reads = [sources(layer, index) for index, layer in enumerate(cfg.layers)]
    ancestors: list[set[int]] = []
    for read in reads:
        ancestors.append(set(read).union(*(ancestors[source] for source in read)))
    trunk = set(range(len(cfg.layers))).intersection(*(ancestors[feeder] for feeder in cfg.head_convolutions.values()))
    enlarged = {index for index, layer in enumerate(cfg.layers) if isinstance(layer, Upsample)}
    whole = [index for index in trunk if not (ancestors[index] | {index}) & enlarged]
    if not whole:
        return []
    deepest = max(whole, key=lambda index: len(ancestors[index]))
    return sorted(ancestors[deepest] | {deepest})


def unused_layers(cfg: Cfg) -> list[int]:
    """Layers on which no head depends, ascending."""
    used: set[int] = set()
    for index, layer in reversed(list(enumerate(cfg.layers))):
        if index in used or isinstance(layer, Yolo):
            used |= {index, *sources(layer, index)}
    return [index for index in range(len(cfg.layers)) if index not in used]
