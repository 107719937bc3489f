"""what `make run` does: the plan, the stages in their order, and what they leave behind"""
