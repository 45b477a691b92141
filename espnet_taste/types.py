"""Constants that more than one room of the package agrees on (no torch).

``IGNORE`` marks "nothing here" in every integer sequence: no code on this
token, no label at this position, padding. ESPnet pads integers with the same
value, so a pad can never be mistaken for token 0 or for the first word.
"""

IGNORE = -1
"""No code, no label, or padding; never a valid token, word, code or unit."""

SAMPLE_RATE_HZ = 16000
"""Rate of every waveform behind the formatting stage, in samples a second."""
