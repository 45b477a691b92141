"""Word times: when each word of a transcript is said, by a choice of aligners."""
