"""Recipes: what they may say, how they are read, and how they become runs."""
