"""Names of expressions: from a dataset's names of its classes to the project's names."""

import re
from collections.abc import Collection

from ferlab.constants import CLASS_NAMES
from ferlab.files import UserError

SYNONYMS = {
    **{name: name for name in CLASS_NAMES},
    "anger": "angry",
    "contempt": "contempt",
    "contemptuous": "contempt",
    "disgusted": "disgust",
    "fearful": "fear",
    "afraid": "fear",
    "happiness": "happy",
    "neutrality": "neutral",
    "sadness": "sad",
    "surprised": "surprise",
    "surprize": "surprise",
    "suprise": "surprise",  # as FER+'s folders on Kaggle spell it
}
ORDERS = {  # the expression that each number stands for
    "fer2013": (0, "angry disgust fear happy sad surprise neutral"),
    "raf-db": (1, "surprise fear disgust happy sad angry neutral"),
    "affectnet": (0, "neutral happy sad surprise fear disgust angry contempt"),
    "fer+": (0, "neutral happy surprise sad angry disgust fear contempt"),
    "ck+": (0, "neutral angry contempt disgust fear happy sad surprise"),
    "ck+csv": (0, "angry disgust fear happy sad surprise neutral contempt"),
}
LAST = 10**9  # words come after numbers


def order_of(name: str) -> dict[str, str]:
    """Returns the expression of each number in the order called `name`, one of ORDERS."""
    first, expressions = ORDERS[name]
    return {str(first + index): word for index, word in enumerate(expressions.split())}


def is_expression(name: str) -> bool:
    """Returns whether `name`, in any case, is a known name of an expression."""
    return name.strip().lower() in SYNONYMS


def plain(name: str) -> str:
    """Returns a class's name in lower case, a number without leading zeros."""
    name = name.strip().lower()
    return str(int(name)) if re.fullmatch(r"\d+", name) else name


def class_map_of(
    names: Collection[str], where: str, order: str | None, flag: str | None
) -> dict[str, str]:
    """Returns the expression that each of a dataset's class names stands for.

    Args:
        names: what the dataset calls its classes, as `plain` returns it.
        where: the dataset, for messages.
        order: key of ORDERS that the dataset's form determines; None if it determines none.
        flag: value of `--class-map`; None without the flag.

    Returns:
        A name for each of `names`; "" for a class that `--class-map` leaves out.

    Raises:
        UserError: a name is unknown, numbers have no certain meaning, or the flag does not fit.
    """
    names = sorted(names, key=lambda name: (int(name), "") if name.isdecimal() else (LAST, name))
    given = parse_class_map(flag, names) if flag else {}
    numbers = {name for name in names if name.isdecimal() and name not in given}
    if numbers:
        order = order or certain_order(numbers)
        if order is None or not numbers <= set(order_of(order)):
            raise UserError(f"{where}: {doubt(numbers)}")
        given = order_of(order) | given
    known = SYNONYMS | given
    unknown = [name for name in names if name not in known]
    if unknown:
        examples = ",".join(f"{name}=CLASS" for name in unknown)
        raise UserError(
            f"{where}: unknown class {', '.join(unknown)}; say what it stands for with --class-map "
            f"{examples}, and leave CLASS empty for what is no class"
        )
    return {name: known[name] for name in names}


def certain_order(numbers: Collection[str]) -> str | None:
    """Returns the only order that has exactly `numbers`; None if several or none have.

    An order is also tried without contempt. So 0 to 6 fit several: FER2013's order, and all that
    end with contempt as 7.
    """
    candidates = []
    for name in ORDERS:
        mapped = order_of(name)
        without = {number for number, word in mapped.items() if word != "contempt"}
        if set(numbers) in (set(mapped), without):
            candidates.append(name)
    return candidates[0] if len(candidates) == 1 else None


def doubt(numbers: Collection[str]) -> str:
    """Returns why numbers are not understood, and the flag that gives their meaning."""
    fitting = [name for name in ORDERS if set(numbers) <= set(order_of(name))]
    shown = "; ".join(
        f"--class-map {name} ("
        + ", ".join(f"{n} {order_of(name)[n]}" for n in sorted(numbers, key=int))
        + ")"
        for name in fitting
    )
    listed = ", ".join(sorted(numbers, key=int))
    if not fitting:
        return (
            f"classes numbered {listed} are in no known order; name each, with "
            f"--class-map {','.join(f'{n}=CLASS' for n in sorted(numbers, key=int))}"
        )
    return f"classes are numbered {listed}, which datasets order differently; choose {shown}"


def parse_class_map(flag: str, names: list[str]) -> dict[str, str]:
    """Returns the class map that `--class-map` gives.

    Args:
        flag: the name of an order; pairs `name=expression`; or expressions, in the order of
            `names`.
        names: the dataset's names, numbers first and in their order.

    Raises:
        UserError: the flag has none of these forms, or names what the dataset does not have.
    """
    if flag.lower() in ORDERS:
        return order_of(flag.lower())
    words = [word.strip() for word in flag.split(",")]
    if all("=" in word for word in words):
        pairs = [word.split("=", 1) for word in words]
        result = {plain(name): canonical(target) for name, target in pairs}
        absent = sorted(set(result) - set(names))
        if absent:
            raise UserError(
                f"--class-map names {', '.join(absent)}, and the dataset has {', '.join(names)}"
            )
        return result
    if any("=" in word for word in words) or len(words) != len(names):
        raise UserError(
            f"--class-map {flag} is not an order ({', '.join(ORDERS)}), pairs as "
            f"joyful=happy,tired=, or a list of one name for each of the dataset's {len(names)} "
            f"classes {', '.join(names)}"
        )
    return dict(zip(names, map(canonical, words), strict=True))


def canonical(name: str) -> str:
    """Returns the project's name of an expression; an unknown one stays, in lower case."""
    name = name.strip().lower()
    return SYNONYMS.get(name, name)


def chosen_classes(flag: str | None, found: Collection[str], where: str) -> tuple[str, ...]:
    """Returns the classes to keep, alphabetical: those of `--classes`, else all.

    Args:
        flag: names with commas between them, or None.
        found: the classes that the dataset has.
        where: the dataset, for messages.

    Raises:
        UserError: a class is not in the dataset, or fewer than two are left.
    """
    chosen = {canonical(name) for name in flag.split(",")} if flag else set(found)
    absent = sorted(chosen - set(found))
    if absent:
        raise UserError(
            f"{where} has no class {', '.join(absent)}, which --classes asks for; it has "
            f"{', '.join(sorted(found))}"
        )
    if len(chosen) < 2:
        raise UserError(
            f"{where}: a model needs two classes or more, and this leaves "
            f"{', '.join(sorted(chosen)) or 'none'}"
        )
    return tuple(sorted(chosen))
