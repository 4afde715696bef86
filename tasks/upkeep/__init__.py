"""Upkeep: what of state/ is still wanted, and whether it is still what was made."""
