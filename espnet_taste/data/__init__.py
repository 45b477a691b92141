"""Kaldi-style tables and arks, audio, and what training reads from them."""
