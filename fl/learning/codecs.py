"""How updates travel in a run: in clear, as integers, or as integers with noise."""

from fl.config.arguments import Args
from fl.privacy.privacy import Privacy
from fl.schemes.plain import PlainCodec
from mphe.arithmetic.sampling import RandomSource
from mphe.update import Codec, PrivateUpdateCodec, UpdateCodec


def codec_for(
    args: Args, size: int, privacy: Privacy | None = None, source: RandomSource | None = None
) -> Codec:
    """Return the codec of updates of `size` values.

    Args:
        args: of the run.
        size: values of the model.
        privacy: what is promised; None without differential privacy.
        source: of a private client's noise.
    """
    if args.aggregation == "plain":
        return PlainCodec(size, args.clip_norm, compression_rate=args.compression_rate)
    if privacy is None:
        return UpdateCodec(
            size,
            args.value_bits,
            args.clip_norm,
            compression_rate=args.compression_rate,
            rotation=args.rotation,
            weighted=args.weighting == "samples",
        )
    return PrivateUpdateCodec(
        size,
        args.value_bits,
        args.clip_norm,
        noise_multiplier=privacy.noise_multiplier,
        honest=privacy.honest,
        sensitivity=privacy.sensitivity if args.dp_unit == "sample" else None,
        compression_rate=args.compression_rate,
        source=source,
    )
