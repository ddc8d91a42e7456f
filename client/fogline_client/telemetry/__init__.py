"""What the model does on this device: counted in memory, cut into windows, spooled until the coordinator has them."""
