"""How a sensor's samples become values on the common clock; a file each."""
