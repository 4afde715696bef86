"""The report of a site: gathered into one model, rendered as text and as JSON."""
