"""Logs as one reads them."""

import json


def to_five(entries):
    """Numbers with five digits: the t intervals of older logs were made with a table of five decimals."""
    return json.loads(json.dumps(entries), parse_float=lambda text: float(f"{float(text):.5g}"))
