"""Search over recipes, and what becomes of its best network."""
