"""What a foreign ONNX file may hold, read from its structure alone: nothing is computed, no other file is touched."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from fogline_shared.errors import Corrupt

# The standard operators and those of quantized models; any other needs code that devices do not have.
DOMAINS = frozenset({"", "ai.onnx", "ai.onnx.ml", "com.microsoft"})
# What ONNX Runtime 1.22 takes, the oldest that devices may have (pyproject.toml).
OLDEST_OPSET, NEWEST_OPSET, NEWEST_IR = 7, 22, 10
# With every function written out where it is called. A network of a thousand layers has some ten thousand.
MOST_NODES = 100_000


def check_foreign(data: bytes) -> None:
    """Refuse what devices cannot run and what would cost more than it says.

    Raises Corrupt ``not_onnx``, ``external_data``, ``unsupported_opset``, ``model_too_large``, ``foreign_operators``.
    """
    import onnx

    try:
        proto = onnx.load_from_string(data)
    except Exception as error:  # protobuf's decoder has several errors
        raise Corrupt("not_onnx", f"not an ONNX file: {error}"[:400]) from error
    parts = [proto.graph, *proto.functions]
    # First of all: the checker below would look for such files.
    if any(tensor.data_location == onnx.TensorProto.EXTERNAL for part in parts for tensor in _tensors(part)):
        raise Corrupt("external_data", "the model keeps its weights in another file: save it as one")
    _check_versions(proto)
    _check_size(proto)
    _check_operators(proto)
    try:
        onnx.checker.check_model(proto, full_check=True)
    except Exception as error:  # the checker and shape inference: no common base
        raise Corrupt("not_onnx", f"not a valid ONNX model: {error}"[:400]) from error


def _check_versions(proto: Any) -> None:
    if proto.ir_version > NEWEST_IR:
        message = (
            f"the file is of IR version {proto.ir_version}, devices take {NEWEST_IR} at most: export it for opset "
            f"{NEWEST_OPSET} or older, or set ir_version of the model"
        )
        raise Corrupt("unsupported_opset", message)
    for opset in proto.opset_import:
        if opset.domain in {"", "ai.onnx"} and not OLDEST_OPSET <= opset.version <= NEWEST_OPSET:
            message = f"the file is of opset {opset.version}, devices take {OLDEST_OPSET} to {NEWEST_OPSET}"
            raise Corrupt("unsupported_opset", message)


def _check_size(proto: Any) -> None:
    """Functions that call functions that call functions: a few kilobytes may stand for more nodes than there is memory."""
    bodies = {(function.domain, function.name): function for function in proto.functions}
    sizes: dict[tuple[str, str], int] = {}

    def size(part: Any, callers: tuple[tuple[str, str], ...]) -> int:
        return sum(1 + size_of((node.domain, node.op_type), callers) for node in _nodes(part))

    def size_of(name: tuple[str, str], callers: tuple[tuple[str, str], ...]) -> int:
        if name not in bodies:
            return 0
        if name in callers:
            raise Corrupt("not_onnx", f"function {name[1]} calls itself")
        if name not in sizes:
            sizes[name] = size(bodies[name], (*callers, name))
        return sizes[name]

    try:
        nodes = size(proto.graph, ())
    except RecursionError:
        raise Corrupt("model_too_large", "the model's functions call each other too deeply") from None
    if nodes > MOST_NODES:
        raise Corrupt("model_too_large", f"the model has {nodes:.3g} operators, {MOST_NODES:,} are allowed")


def _check_operators(proto: Any) -> None:
    import onnx

    own = {(function.domain, function.name) for function in proto.functions}
    nodes = [node for part in (proto.graph, *proto.functions) for node in _nodes(part)]
    if any(isinstance(text, bytes) for node in nodes for text in (node.domain, node.op_type)):
        raise Corrupt("not_onnx", "an operator's name is not UTF-8")  # protobuf then gives bytes
    foreign = {node.domain for node in nodes} - DOMAINS
    if foreign:
        raise Corrupt("foreign_operators", f"operators of {_listed(foreign)} are not on devices")
    # Those of com.microsoft are known to ONNX Runtime alone, which will say so.
    standard = {(node.domain, node.op_type) for node in nodes if node.domain != "com.microsoft"} - own
    unknown = {op for domain, op in standard if not onnx.defs.has(op, domain="" if domain == "ai.onnx" else domain)}
    if unknown:
        raise Corrupt("foreign_operators", f"ONNX knows no operator {_listed(unknown)}")


def _listed(names: set[str]) -> str:
    return ", ".join(sorted(names)[:10])[:200]


def _graphs(node: Any) -> Iterator[Any]:
    """The graphs inside a node: branches of an If, the body of a Loop."""
    for attribute in node.attribute:
        if attribute.HasField("g"):
            yield attribute.g
        yield from attribute.graphs


def _nodes(part: Any) -> Iterator[Any]:
    """Every node of a graph or function and of the graphs inside. Protobuf bounds how deep they lie."""
    for node in part.node:
        yield node
        for graph in _graphs(node):
            yield from _nodes(graph)


def _tensors(part: Any) -> Iterator[Any]:
    """Every tensor of a graph or function: initializers, constants, the parts of sparse ones, at any depth."""
    yield from getattr(part, "initializer", ())
    for sparse in getattr(part, "sparse_initializer", ()):
        yield from (sparse.values, sparse.indices)
    for node in part.node:
        for attribute in node.attribute:
            yield from (attribute.t, *attribute.tensors)
            for sparse in (attribute.sparse_tensor, *attribute.sparse_tensors):
                yield from (sparse.values, sparse.indices)
        for graph in _graphs(node):
            yield from _tensors(graph)


def check_metadata(metadata: Mapping[str, str], example_bytes: int) -> None:
    """Raise Corrupt ``model_too_large`` for metadata beyond a manifest's: it travels with every download."""
    allowed = (1 << 20) + 2 * example_bytes
    size = sum(len(name) + len(value) for name, value in metadata.items())
    if size > allowed:
        raise Corrupt("model_too_large", f"the file has {size:,} bytes of metadata, {allowed:,} are allowed")
