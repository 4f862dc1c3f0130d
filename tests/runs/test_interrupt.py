import signal
import threading

import pytest

from trajplan.runs import interrupt
from trajplan.runs.interrupt import Interrupt


def test_one_ctrl_c_is_a_wish_even_if_it_comes_twice():
    with Interrupt() as wish:
        assert not wish.wanted
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
        assert wish.wanted


@pytest.fixture
def usual_ctrl_c():
    """Ctrl-C raises KeyboardInterrupt, also where the shell that started the tests had it ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("usual_ctrl_c")
def test_a_second_ctrl_c_later_interrupts(monkeypatch):
    monkeypatch.setattr(interrupt, "SAME_SECONDS", -1.0)
    with Interrupt():
        signal.raise_signal(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


def test_the_handlers_are_put_back():
    before = [signal.getsignal(number) for number in Interrupt.SIGNALS]
    with Interrupt():
        assert [signal.getsignal(number) for number in Interrupt.SIGNALS] != before
    assert [signal.getsignal(number) for number in Interrupt.SIGNALS] == before


def test_outside_the_main_thread_it_does_nothing():
    seen = []

    def work():
        with Interrupt() as wish:
            seen.append(wish.wanted)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [False]
