"""What can be read in a figure."""

import io

from matplotlib.figure import Figure
from matplotlib.text import Text


def labels(fig: Figure) -> list[Text]:
    """Every text that is not empty, after drawing once; the cells of tables keep theirs to themselves."""
    fig.savefig(io.BytesIO(), format="png", dpi=40)
    cells = [cell.get_text() for ax in fig.axes for table in ax.tables for cell in table.get_celld().values()]
    return [text for text in fig.findobj(Text) + cells if text.get_text()]


def texts(fig: Figure) -> list[str]:
    return [text.get_text() for text in labels(fig)]


def written(fig: Figure) -> str:
    """All of it, a line a text."""
    return "\n".join(texts(fig))
