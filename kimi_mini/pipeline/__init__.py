"""`make run`: the plan, the stages in their order, and what they leave behind."""
