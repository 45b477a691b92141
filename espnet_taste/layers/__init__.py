"""Building blocks: maths on tensors that knows nothing of speech or text."""
