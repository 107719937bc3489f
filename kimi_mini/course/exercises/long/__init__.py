"""Exercises that take an evening."""
