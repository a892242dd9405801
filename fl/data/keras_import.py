"""TensorFlow's first lines on the terminal, which no setting silences, kept off it."""

import importlib
import os
import sys
import tempfile


def import_quietly() -> None:
    """Import Keras and TensorFlow without the lines that TF_CPP_MIN_LOG_LEVEL does not silence.

    What they write to file descriptor 2 is shown only if the import fails.
    """
    sys.stderr.flush()
    real = os.dup(2)
    with tempfile.TemporaryFile() as noise:
        try:
            os.dup2(noise.fileno(), 2)
            importlib.import_module("keras")
            importlib.import_module("tensorflow")
        except BaseException:
            noise.seek(0)
            os.write(real, noise.read())
            raise
        finally:
            os.dup2(real, 2)
            os.close(real)
