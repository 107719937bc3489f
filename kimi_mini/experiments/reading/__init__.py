"""Notebook 06: does the agent read what it is told, or does it know its sentences by heart?"""
