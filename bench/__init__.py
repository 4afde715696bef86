"""Benchmarks: each room's speed against the usual way, in pairs, in one run."""
