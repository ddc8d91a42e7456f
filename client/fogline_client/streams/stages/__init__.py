"""What is done to answers on their way to the sinks; a file each."""
