"""Serving: the endpoint, its engine, and calls that are held to their schemas."""
