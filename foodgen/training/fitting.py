"""Whether weights are those of a network and are numbers, and which are not."""

from collections.abc import Mapping, Sequence

from torch import Tensor


def misfit_of(own: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> str | None:
    """How weights differ from a network's own in names, shapes and kinds of numbers; None if they do not."""
    missing, more = [name for name in own if name not in given], [name for name in given if name not in own]
    if missing or more:
        differences = {"it lacks": missing, "it holds besides": more}
        return "; ".join(f"{what} {_some(names)}" for what, names in differences.items() if names)
    for name, tensor in own.items():
        other = given[name]
        if other.shape != tensor.shape:
            return f"size mismatch for {name}: {[*other.shape]} there, {[*tensor.shape]} here"
        if other.is_complex() or other.is_floating_point() != tensor.is_floating_point():
            return (
                f"{name} is {str(other.dtype).removeprefix('torch.')}, not {str(tensor.dtype).removeprefix('torch.')}"
            )
    return None


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more weights" if len(names) > 3 else "")


def not_finite(weights: Mapping[str, Tensor]) -> str | None:
    """The first of these weights that is infinite or not a number, None if all are finite."""
    for name, tensor in weights.items():
        if tensor.is_floating_point() and not bool(tensor.isfinite().all()):
            return name
    return None
