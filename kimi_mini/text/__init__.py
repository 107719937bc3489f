"""strings <-> tokens: tokenizer, chat format, corpora, drills, rephrasing"""
