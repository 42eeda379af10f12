"""What is on disk: atomic files, the cache, artifacts, embedding tables. Nothing loaded here can run code."""
