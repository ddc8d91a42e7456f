"""Generate the protobuf code from edge.proto; with --check, say whether the committed code is what it would be."""

import argparse
import sys
import tempfile
from pathlib import Path

import grpc_tools
from grpc_tools import protoc

ROOT = Path(__file__).resolve().parent.parent
SOURCES = ROOT / "shared"
PROTO = "fogline_shared/proto/edge.proto"
GENERATED = ("edge_pb2.py", "edge_pb2.pyi", "edge_pb2_grpc.py")


def generate(target: Path) -> None:
    """Write the three generated modules below ``target``."""
    well_known = Path(grpc_tools.__file__).parent / "_proto"
    outputs = [f"--{kind}_out={target}" for kind in ("python", "pyi", "grpc_python")]
    if protoc.main(["protoc", f"-I{SOURCES}", f"-I{well_known}", *outputs, str(SOURCES / PROTO)]):
        sys.exit(f"protoc failed on {PROTO}")


def stale(fresh: Path) -> list[str]:
    """Names of committed modules that differ from the fresh ones."""
    folder = Path(PROTO).parent
    return [name for name in GENERATED if (SOURCES / folder / name).read_text() != (fresh / folder / name).read_text()]


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
