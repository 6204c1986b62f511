"""What the page's inputs may hold: everything else is refused in one short line."""

from typing import Any

from foodgen.core.errors import UserError

MOST_STEPS = 100  # of a sampler
MOST_SEED = 2**31 - 1
BOUNDS = {"guidance": (0.0, 100.0), "interval": (0.0, 1e6), "steps": (1.0, MOST_STEPS), "truncation": (0.0, 1.0)}


def dishes_of(names: Any) -> tuple[str, ...]:
    """Chosen dishes; none for None. Raises UserError if these are no names."""
    if names is not None and not (isinstance(names, list | tuple) and all(isinstance(name, str) for name in names)):
        raise UserError(f"dishes: {brief(names)} are no names")
    return tuple(names or ())


def number(name: str, value: Any, least: float | None = None, most: float | None = None) -> float:
    """The value. Raises UserError if it is none, is not finite, or lies outside."""
    if isinstance(value, bool) or not isinstance(value, int | float) or value != value:  # NaN alone is not itself
        raise UserError(f"{name}: {brief(value, quoted=True)} is not a number")
    if (least is not None and value < least) or (most is not None and value > most):
        raise UserError(f"{name}: {brief(value)} is not between {least:.10g} and {most:.10g}")
    return value


def whole(name: str, value: Any, least: int, most: int) -> int:
    """The value as a whole number. Raises UserError if it is none, or lies outside."""
    found = number(name, value, least, most)
    if found != int(found):
        raise UserError(f"{name}: {brief(value)} is not a whole number")
    return int(found)


def brief(value: Any, quoted: bool = False) -> str:
    """A value as a message has it: on one line, and not long."""
    if isinstance(value, int) and abs(value) >= 10**20:  # Python does not write out numbers of any length
        return "a number of more than 20 digits"
    text = str(value) if isinstance(value, str) and not quoted else repr(value)
    return "".join(c if c.isprintable() else "?" for c in (text if len(text) <= 60 else f"{text[:60]}..."))


def seed(value: Any) -> int:
    """A seed, 0 for an empty field. Raises UserError."""
    return 0 if value is None else whole("seed", value, 0, MOST_SEED)
