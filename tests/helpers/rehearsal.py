"""`python -m kimi_mini run --rehearsal`, mortal:

    KILL=finetune.pt:3 python tests/helpers/rehearsal.py --folder F

kills itself with SIGKILL in the middle of the third save of fine-tuning. It saves after every step.
"""

import functools
import os
import signal
import sys
from pathlib import Path

from kimi_mini import __main__
from kimi_mini.pipeline import shared


def mortal(replace, name, number):
    """`os.replace` that ends the process on the given save of the file `name`: half of it is written, the old one stands."""
    count = 0

    def replace_or_die(part, file, **options):
        nonlocal count
        count += Path(file).name == name
        if count == number:
            Path(part).write_bytes(b"half a file")
            os.kill(os.getpid(), signal.SIGKILL)
        return replace(part, file, **options)

    return replace_or_die


if __name__ == "__main__":
    if "KILL" in os.environ:
        name, number = os.environ["KILL"].split(":")
        os.replace = mortal(os.replace, name, int(number))
    __main__.AGAIN = [sys.executable, __file__]  # its ranks are mortal, too; the first one writes, and dies
    shared.train = functools.partial(shared.train, save_seconds=0.0)
    words = (
        sys.argv[1:] if sys.argv[1:2] == ["run"] else ["run", "--rehearsal", "--threads", "1", *sys.argv[1:]]
    )
    sys.exit(__main__.main(words))
