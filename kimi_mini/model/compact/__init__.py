"""a model in less room: INT4, the experts in four bits; LoRA, a small change kept apart"""
