"""Names of any words: for training, all words of a book and made-up ones; held out, words that no training text holds.

A name out of a short list is learned by heart; a name of any words has to be read.
"""

from __future__ import annotations

import random
import re
from collections import Counter
from functools import lru_cache
from itertools import accumulate

from kimi_mini.base.errors import MissingFile
from kimi_mini.base.paths import TEXT, in_clone

# Words of today: neither the book nor Python's standard library has them (a test looks them up in both).
HELD_OUT = tuple(
    """
    aerobics airbag avocado backpack badminton bathrobe beanbag bikini blender bobsled boombox broccoli
    bulldozer burrito cardigan cashew catamaran chainsaw cheesecake cheetah chopstick churro cocktail
    corduroy croissant crouton cupcake daiquiri denim dishwasher doughnut dragonfruit driveway
    dungarees espresso falafel flamingo forklift frisbee gazebo gelato gherkin granola
    guacamole guitar gymnast haiku hairdryer hamburger hamster hatchback headphone helicopter hoodie hopscotch
    hovercraft iguana jacuzzi jeans jigsaw jukebox karaoke kayak ketchup kimono koala lasagna
    lawnmower lemonade limousine lipstick lollipop macaroni mango marathon mascara mayonnaise meatball meerkat
    meringue microwave milkshake minivan mozzarella mushroom nachos nightclub noodle nylon
    omelette origami paella pancake panda papaya paprika parachute pavlova peanut pepperoni piano pinata
    pistachio pizza playground polyester popcorn popsicle postcard pretzel pullover quiche quinoa
    raccoon ravioli risotto saxophone scooter seatbelt shampoo skateboard sneakers snorkel snowboard
    soybean spaghetti stapler stroller sudoku sunscreen surfboard sushi sweatshirt taxi tequila
    toaster tofu tortilla toothbrush tractor treadmill trombone tuxedo ukulele unicycle vanilla
    volleyball yogurt yoyo zebra zeppelin zipper zucchini
    """.split()
)
_SYLLABLES = [
    a + b for a in "b d f g k l m n p r s t v z br gr st tr pl sh".split() for b in "a e i o u".split()
]


GRAMMAR = (
    80  # so many of the most frequent words are grammar: a name without quotes that holds "and" is two names
)


@lru_cache(maxsize=1)
def counted() -> Counter[str]:
    """How often each word of the book stands there: three to ten letters, without those that are held out.

    Raises MissingFile without the book."""
    book = TEXT / "moby-dick.txt"
    if not book.is_file():
        raise MissingFile(f"{book} is missing; {in_clone('data/text/README.md says how to make it again')}")
    words = re.findall(r"\b[a-z]{3,10}\b", book.read_text(encoding="ascii").lower())
    return Counter(word for word in words if word not in HELD_OUT)


@lru_cache(maxsize=1)
def trained() -> tuple[str, ...]:
    """Those words in alphabetical order."""
    return tuple(sorted(counted()))


@lru_cache(maxsize=1)
def common() -> tuple[tuple[str, ...], tuple[float, ...]]:
    """The words that people name things with: those that stand in the book eight times or more and are no grammar; and
    the running sum of their weights, the root of the counts."""
    grammar = {word for word, _ in counted().most_common(GRAMMAR)}
    words = tuple(word for word in trained() if counted()[word] >= 8 and word not in grammar)
    return words, tuple(accumulate(counted()[word] ** 0.5 for word in words))


def word(rng: random.Random, held_out: bool = False) -> str:
    """One word: held out; or of the book, one in six made up."""
    if held_out:
        return rng.choice(HELD_OUT)
    if rng.random() < 1 / 6:
        made = "".join(rng.choices(_SYLLABLES, k=rng.randint(2, 3))) + rng.choice(["", "n", "r", "s"])
        return made if made not in HELD_OUT else word(rng)
    return rng.choice(trained())


def everyday(rng: random.Random) -> str:
    """One word: any trained one, or as likely one of those that are common."""
    if rng.random() < 0.5:
        return word(rng)
    words, sums = common()
    return rng.choices(words, cum_weights=sums)[0]


def names(rng: random.Random, count: int, held_out: bool = False, plainly: bool = False) -> list[str]:
    """`count` different names of one to three words, one in eight with capitals; no name holds another. plainly: half
    of the words are common ones."""
    made: list[str] = []
    while len(made) < count:
        length = rng.choice((1, 2, 2, 2, 3))
        name = " ".join(everyday(rng) if plainly else word(rng, held_out) for _ in range(length))
        name = name.title() if rng.random() < 1 / 8 else name
        if not any(name.lower() in other.lower() or other.lower() in name.lower() for other in made):
            made.append(name)
    return made


def identifier(rng: random.Random, held_out: bool = False) -> str:
    """A name for a tool or an argument that says nothing: one or two words, in one of four styles."""
    parts = [word(rng, held_out) for _ in range(rng.choice((1, 1, 1, 2)))]
    if len(parts) == 1:
        return parts[0]
    style = rng.randrange(4)
    camel = parts[0] + parts[1].title()
    return ("_".join(parts), "-".join(parts), camel, camel[0].upper() + camel[1:])[style]
