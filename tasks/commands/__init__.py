"""doit's commands for people: what they look at, and what they do by hand."""
