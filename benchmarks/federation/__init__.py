"""What federation costs and what it stands, a group a file."""
