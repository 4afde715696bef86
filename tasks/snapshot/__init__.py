"""mirror -> trust -> frozen tree: a signed snapshot becomes a commit and a date tag in git."""
