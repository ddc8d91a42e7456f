"""What both sides of Fogline speak: values, states, wire format, tensors. No I/O."""

import os

__version__ = "0.1.0"

# ONNX Runtime's wheels report to their vendor, and leave an identifier in the home folder, unless this is set before
# they are loaded. What a device does is nobody else's business; who wants the reports sets "0".
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
