"""A folder for PYTHONPATH: what Python loads from it at its start stops it at each boundary."""
