"""Released checkpoints to our layout and back, tensor by tensor."""
