"""Spoken LM: a text LLM with LoRA that reads and predicts TASTE (no ESPnet here)."""
