"""Hostile input of every kind against a gateway, while well-behaved clients look on."""
