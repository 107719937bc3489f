"""Where a model is trained: device, number format, memory, several processes."""
