"""Types of keys and arguments: what a number, a word or a path must be, wherever one is wanted.

The upper bounds are such that no sensible configuration meets them: what lies beyond is a slip.
"""

from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field

from foodgen.core.registry import metrics, shown

LONGEST_NAME = 255  # bytes of a file's name


def _not_a_boolean(value: Any) -> Any:
    if isinstance(value, bool):
        raise ValueError("a number is expected, not true or false")
    return value


def _number_as_text(value: Any) -> Any:
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


def _is_word(value: str) -> str:
    if not value.strip():
        raise ValueError("a word is expected, and this is empty")
    if not value.isprintable():
        raise ValueError("a word is expected, and this holds characters that cannot be printed")
    return value


def _is_place(value: str) -> str:
    if any(len(part.encode(errors="replace")) > LONGEST_NAME for part in value.split("/")):
        raise ValueError("no file or folder has so long a name")
    return value


def _is_metric(value: str) -> str:
    metrics[value.rpartition("/")[2]]  # raises ConfigError for a name that is none
    return value


def are_different(values: list[Any]) -> list[Any]:
    """The values; raises ValueError if one is given twice."""
    for index, value in enumerate(values):
        if value in values[:index]:
            raise ValueError(f"{shown(value)} is given twice")
    return values


Number = Annotated[int, BeforeValidator(_not_a_boolean)]
Positive = Annotated[Number, Field(ge=1, le=1_000_000_000)]
Few = Annotated[Number, Field(ge=0, le=10_000)]
ImageCount = Annotated[Number, Field(ge=0, le=10_000_000)]
BatchSize = Annotated[Number, Field(ge=1, le=1_000_000)]
Pixels = Annotated[Number, Field(ge=1, le=8_192)]
Seed = Annotated[Number, Field(ge=0, le=2**63 - 1)]
Share = Annotated[float, BeforeValidator(_not_a_boolean), Field(ge=0, lt=1)]
Above = Annotated[float, BeforeValidator(_not_a_boolean), Field(gt=0, le=1e9)]
Length = Annotated[float, BeforeValidator(_not_a_boolean), Field(ge=0, lt=12**-0.5)]  # sigma_rel of an average
Word = Annotated[str, AfterValidator(_is_word)]
Text = Annotated[Word, BeforeValidator(_number_as_text)]  # 007 is a name, too
Place = Annotated[Word, AfterValidator(_is_place)]
Name = Annotated[Text, AfterValidator(_is_place)]
Host = Annotated[str, Field(pattern=r"^[A-Za-z0-9:_.-]+$")]
Device = Annotated[str, Field(pattern=r"^(auto|cpu|mps|cuda(:[0-9]{1,3})?)$")]
Classes = Annotated[list[Text], Field(min_length=1), AfterValidator(are_different)]
Metrics = Annotated[list[Annotated[str, AfterValidator(_is_metric)]], AfterValidator(are_different)]
