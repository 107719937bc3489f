"""Notebook 06: error rates, filtered against unfiltered, quota, rejection sampling."""
