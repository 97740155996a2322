"""What a face model's file holds, as the program's own reader of ONNX files says it, and what is wrong with one."""

from webui.hooks import WebUIError, onnx_file

Shape = onnx_file.Shape
Port = onnx_file.Port
Graph = onnx_file.Graph
NotReadable = onnx_file.NotReadable
missing_weights = onnx_file.missing_weights
read_graph = onnx_file.read_graph
read_stored = onnx_file.read_stored
signature = onnx_file.signature
written = onnx_file.written


class BrokenModel(WebUIError):
    """A model file that cannot be used, or that failed at its work. `reason` is a part of a sentence."""

    def __init__(self, name: str, reason: str, *, hint: str = "") -> None:
        super().__init__(f"The face model '{name}' cannot be used: {reason}.", hint=hint)
        self.name = name
        self.reason = reason
