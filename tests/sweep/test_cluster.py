"""A signal while a cluster starts is answered once it has started, so that it can be closed."""

from __future__ import annotations

import signal

import pytest

from odebench.sweep.cluster import _signals_wait


def test_an_interrupt_waits_until_the_cluster_has_started() -> None:
    steps = []

    def start() -> None:
        with _signals_wait():
            signal.raise_signal(signal.SIGINT)
            steps.append("started")

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            start()
        assert steps == ["started"]
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
        with _signals_wait():
            pass
    finally:
        signal.signal(signal.SIGINT, before)


def test_an_error_of_the_start_is_no_less_an_error() -> None:
    with pytest.raises(OSError, match="no port"), _signals_wait():
        raise OSError("no port")
