"""Who gets what over HTTP: policy, users, the distfile mirror, and nginx."""
