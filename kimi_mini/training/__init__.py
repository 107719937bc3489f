"""One step and many: batches, the loop, optimizers, machines, synthesis, fine-tuning, RL."""
