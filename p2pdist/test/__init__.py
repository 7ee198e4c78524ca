"""Tests; run them with trial."""
