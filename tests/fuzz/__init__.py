"""Everything that no honest client says, thrown at a gateway: `scripts/fuzz`."""
