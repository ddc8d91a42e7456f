"""Generate the protobuf code; with --check, say whether the committed code is what it would be."""

import argparse
import sys
import tempfile
from pathlib import Path

import grpc_tools
from grpc_tools import protoc

ROOT = Path(__file__).resolve().parent.parent
SOURCES = ROOT / "shared"
FOLDER = "fogline_shared/proto"
# The Open Inference Protocol's messages have no service of their own: see the head of its file.
GENERATED = {
    "edge.proto": ("edge_pb2.py", "edge_pb2.pyi", "edge_pb2_grpc.py"),
    "open_inference.proto": ("open_inference_pb2.py", "open_inference_pb2.pyi"),
}
_KINDS = {"_pb2.py": "python", "_pb2.pyi": "pyi", "_pb2_grpc.py": "grpc_python"}


def generate(target: Path) -> None:
    """Write the generated modules below ``target``."""
    well_known = Path(grpc_tools.__file__).parent / "_proto"
    for proto, modules in GENERATED.items():
        kinds = [_KINDS[module.removeprefix(proto.removesuffix(".proto"))] for module in modules]
        outputs = [f"--{kind}_out={target}" for kind in kinds]
        if protoc.main(["protoc", f"-I{SOURCES}", f"-I{well_known}", *outputs, str(SOURCES / FOLDER / proto)]):
            sys.exit(f"protoc failed on {proto}")


def stale(fresh: Path) -> list[str]:
    """Names of committed modules that differ from the fresh ones."""
    names = [name for modules in GENERATED.values() for name in modules]
    return [name for name in names if (SOURCES / FOLDER / name).read_text() != (fresh / FOLDER / name).read_text()]


def main() -> None:
    """Generate, or check."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true")
    if not parser.parse_args().check:
        generate(SOURCES)
        return
    with tempfile.TemporaryDirectory() as folder:
        generate(Path(folder))
        if names := stale(Path(folder)):
            sys.exit(f"stale generated code: {', '.join(names)}; run `make proto`")
    print("generated protobuf code is fresh")  # noqa: T201


if __name__ == "__main__":
    main()
