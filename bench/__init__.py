"""Measurements: one file each, run by `tristream bench NAME`. Each compares two things in one run."""
