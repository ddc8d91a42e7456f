"""What strategies are built of: means, geometry and coordinates of a round's updates, read block by block."""
