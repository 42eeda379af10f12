"""Command line: one file per command, which validates, calls and prints. No maths."""
