"""Seeds: stage tarballs are downloaded, judged entry by entry and extracted."""
