"""How far it carries: lists longer than any that was trained, and hundreds of calls in a context that is kept short."""
