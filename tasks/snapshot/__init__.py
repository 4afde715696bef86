"""Snapshots: a signed archive of the tree becomes a commit and a tag in git; overlays; exports."""
