"""Pieces on disk: geometry, state file, store. Knows no network."""
