"""An ONNX graph that is written node by node."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from onnx import GraphProto, NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper

from yolo_dist.errors import NotExportable

INTEGERS_OF_16_BITS = 21
"""First opset whose QuantizeLinear and DequantizeLinear know them."""


class Graph:
    """Nodes and constants in the order in which they are added.

    Attributes:
        opset: version of ONNX's operators.
        place: what is being written, in names and messages: "layer 3".
    """

    def __init__(self, opset: int) -> None:
        self.opset = opset
        self.place = "image"
        self.nodes: list[NodeProto] = []
        self.constants: list[TensorProto] = []

    def add(self, operator: str, *inputs: str, **attributes: Any) -> str:
        """Add a node; the name of its only output."""
        return self.add_split(operator, inputs, 1, **attributes)[0]

    def add_split(self, operator: str, inputs: Sequence[str], count: int, **attributes: Any) -> list[str]:
        """Add a node of `count` outputs; their names."""
        name = f"{self.place.replace(' ', '')}/{operator}-{len(self.nodes)}"
        outputs = [name] if count == 1 else [f"{name}:{number}" for number in range(count)]
        self.nodes.append(helper.make_node(operator, inputs, outputs, name, **attributes))
        return outputs

    def give(self, value: str, name: str, shape: Sequence[int | str | None]) -> ValueInfoProto:
        """Give a float32 value to whoever runs the graph, under a name of its own."""
        self.nodes.append(helper.make_node("Identity", [value], [name], name))
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)

    def finish(self, name: str, inputs: Sequence[ValueInfoProto], outputs: Sequence[ValueInfoProto]) -> GraphProto:
        """The graph."""
        return helper.make_graph(self.nodes, name, inputs, outputs, self.constants)

    def constant(self, values: ArrayLike, dtype: Any = np.float32) -> str:
        """Add numbers; their name."""
        name = f"{self.place.replace(' ', '')}/constant-{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.asarray(values, dtype), name))
        return name

    def require(self, opset: int, what: str) -> None:
        """Refuse what the operators of this version cannot express.

        Raises:
            NotExportable: the version is older than `opset`.
        """
        if self.opset < opset:
            raise NotExportable(f"{self.place}: {what} needs opset {opset} of ONNX, not {self.opset}; set opset")
