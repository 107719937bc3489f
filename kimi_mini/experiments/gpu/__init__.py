"""What is measured on one GPU: `python -m kimi_mini gpu`, one file a part."""
