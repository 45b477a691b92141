"""Trained models at work: codes, scores, units, audio, continuations."""
