"""Discrete speech units and speaker embeddings, learned or loaded offline."""
