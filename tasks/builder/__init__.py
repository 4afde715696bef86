"""Builds of packages side by side: what ran, what failed and why."""
