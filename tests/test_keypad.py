"""Whose the caller's keys are."""

from __future__ import annotations

import trio
from trio.testing import MockClock

from voicecore.call.keypad import KEYS_WAITING, Keypad


async def press(keypad: Keypad, keys: str, every_s: float) -> None:
    for key in keys:
        await trio.sleep(every_s)
        keypad.press(key)


async def test_what_nobody_collects_is_typed_after_a_pause(autojump_clock: MockClock) -> None:
    keypad, began = Keypad(), trio.current_time()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(press, keypad, "4711", 0.5)
        assert await keypad.typed() == "4711"
    assert trio.current_time() - began == 4.0


async def test_enter_ends_it_at_once_and_alone_is_nothing(autojump_clock: MockClock) -> None:
    keypad, began = Keypad(), trio.current_time()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(press, keypad, "#12#", 0.5)
        assert await keypad.typed() == "12"
    assert trio.current_time() - began == 2.0


async def test_a_collector_gets_the_keys_also_those_before_it(autojump_clock: MockClock) -> None:
    keypad = Keypad()
    typed: list[str] = []

    async def listen() -> None:
        typed.append(await keypad.typed())

    async with trio.open_nursery() as nursery:
        nursery.start_soon(listen)
        await trio.sleep(0.1)
        keypad.press("1")
        await trio.sleep(1)
        with keypad.collected():
            assert keypad.is_collected
            assert await keypad.next_key(9) == "1"
            nursery.start_soon(press, keypad, "23", 3)
            assert await keypad.next_key(9) == "2"
            assert await keypad.next_key(1) is None
        await trio.sleep(3.9)
        assert typed == []
        await trio.sleep(0.5)
    assert typed == ["3"]


async def test_keys_are_bounded() -> None:
    keypad = Keypad()
    for number in range(1000):
        keypad.press(str(number % 10))
    with keypad.collected():
        keys = [await keypad.next_key(0) for _ in range(KEYS_WAITING)]
        assert keys[-1] == "9"
        assert await keypad.next_key(0) is None
