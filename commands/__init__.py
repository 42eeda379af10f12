"""One file per command: validates, calls, prints. No maths."""
