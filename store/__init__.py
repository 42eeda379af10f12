"""Files on disk: atomic writes, the cache, artifacts, embedding tables. Nothing loaded here can run code."""
