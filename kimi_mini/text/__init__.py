"""Strings and tokens: tokenizer, chat format and parser, corpora, drills, rephrasing."""
