"""A folder for PYTHONPATH: its sitecustomize.py stops Python at each boundary."""
