"""Speech and its transcript to codes: one TASTE vector a word."""
