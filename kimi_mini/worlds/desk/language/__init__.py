"""What is said at the desk: names (words), sentences (frames), and requests made of them (wordings)."""
