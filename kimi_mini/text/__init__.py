"""strings <-> tokens: tokenizer, chat format, corpora, drills, rephrasing"""

from kimi_mini.text.chat import CHAT_TEMPLATE, DEFAULT_SYSTEM, encode, encode_results, render
from kimi_mini.text.messages import checked, content_text
from kimi_mini.text.parser import parse, parse_ids
from kimi_mini.text.tokenizer import SPECIAL_TOKENS, Tokenizer

__all__ = [
    "CHAT_TEMPLATE",
    "DEFAULT_SYSTEM",
    "SPECIAL_TOKENS",
    "Tokenizer",
    "checked",
    "content_text",
    "encode",
    "encode_results",
    "parse",
    "parse_ids",
    "render",
]
