"""From a configuration to logits: attention, experts, the whole model, and its folder on disk."""
