"""Upkeep: delete the parts of state/ that nothing needs (gc), and verify the others (fsck)."""
