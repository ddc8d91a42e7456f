"""What both sides of Fogline speak: values, states, wire format, tensors. No I/O."""

__version__ = "0.1.0"
