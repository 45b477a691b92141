"""From TASTE embeddings to units, and from units to a waveform."""
