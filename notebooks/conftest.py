"""nbval waits 5 seconds for output that arrives after a cell has ended; a cell that trains may take longer."""

OUTPUT_TIMEOUT = 60  # seconds


def pytest_collection_modifyitems(items: list) -> None:
    for item in items:
        if hasattr(item, "output_timeout"):
            item.output_timeout = OUTPUT_TIMEOUT
