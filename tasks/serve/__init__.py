"""Serving over HTTP: the access policy, users, the distfile mirror, and nginx."""
