"""Faults under load, and books that must balance: `python -m tests.soak --help`."""
