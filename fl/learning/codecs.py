"""How updates travel in a run: in clear, as integers, or as integers with noise."""

from fl.config.configs import CodecConfig
from fl.privacy.privacy import Privacy
from fl.schemes.plain_codec import PlainCodec
from mphe.arithmetic.sampling import RandomSource
from mphe.update import Codec, PrivateUpdateCodec, UpdateCodec


def codec_for(
    config: CodecConfig,
    size: int,
    privacy: Privacy | None = None,
    source: RandomSource | None = None,
) -> Codec:
    """Return the codec of updates of `size` values.

    Args:
        config: of the run.
        size: values of the model.
        privacy: what is promised; None without differential privacy.
        source: of a private client's noise.
    """
    rate = config.compression_rate
    if config.aggregation == "plain":
        return PlainCodec(size, config.clip_norm, compression_rate=rate)
    if privacy is None:
        return UpdateCodec(
            size,
            config.value_bits,
            config.clip_norm,
            compression_rate=rate,
            rotation=config.rotation,
            weighted=config.weighted,
        )
    return PrivateUpdateCodec(
        size,
        config.value_bits,
        config.clip_norm,
        noise_multiplier=privacy.noise_multiplier,
        honest=privacy.honest,
        sensitivity=privacy.sensitivity if privacy.unit == "sample" else None,
        compression_rate=rate,
        source=source,
    )
