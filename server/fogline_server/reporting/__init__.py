"""Reports as one self-contained HTML page each: the look they share, and curves in it."""
