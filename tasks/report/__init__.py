"""What people look at: gathered into one model as data, rendered as text and as JSON."""
