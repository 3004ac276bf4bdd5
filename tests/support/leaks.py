"""A tolerance for what kafka-python leaves behind when a broker goes away."""

import gc
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def leaking_sockets() -> Iterator[None]:
    """Let kafka-python leave sockets of failed connections to the garbage collector, as 3.0.12 does."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        logging.disable()  # kept log lines would keep the exceptions, their frames and the sockets
        try:
            yield
        finally:
            logging.disable(logging.NOTSET)
            gc.collect()
