"""What the mean of honest updates cannot be: weights and a norm that no client may send."""

from mphe.update.quantise import MAX_WEIGHT, WEIGHT_UNIT

FLOAT_ROUNDING = 2.0**-18
"""Part by which clipping, weighing and rotating in float32 may lengthen: some 20 roundings."""


def implausible_mean(norm: float, limit: float) -> str:
    """Return why honest updates have no mean of this L2 norm, in one line; "" where they may."""
    if norm <= limit:
        return ""
    return f"the mean update has norm {norm:.4g}, where honest ones have at most {limit:.4g}"


def implausible_weight(weight: float, contributors: int) -> str:
    """Return why so many clients do not weigh that much together; "" where they may."""
    least, most = contributors * WEIGHT_UNIT, contributors * MAX_WEIGHT
    if least <= weight <= most:
        return ""
    return (
        f"the weights of {contributors} updates add up to {weight:.6g}, "
        f"where honest ones are between {least:.6g} and {most:.6g}"
    )
