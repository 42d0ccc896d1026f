"""/metrics: whole calls in, Prometheus text out; and the warm-up that a webhook starts."""

from __future__ import annotations

from functools import partial

import pytest
import trio
import trio.lowlevel
from prometheus_client.parser import text_string_to_metric_families
from server_house import CALL_SID, ask, get, memory_server, post, settings
from trio.testing import MockClock
from trio_websocket import wrap_client_stream

from voicecore.call.call import Call
from voicecore.server.conversing import converse_with
from voicecore.server.metrics import WAITING, Metrics
from voicecore.server.serve import serve
from voicecore.testing import FakeLLM, FakeTTS, ScriptedCaller, fake_agent

TEN = "one two three four five six seven eight nine ten."


def samples(text: bytes) -> dict[str, float]:
    """Every sample by its name and labels."""
    found = {}
    for family in text_string_to_metric_families(text.decode()):
        for sample in family.samples:
            labels = ",".join(f"{name}={value}" for name, value in sample.labels.items())
            found[f"{sample.name}{{{labels}}}" if labels else sample.name] = sample.value
    return found


async def test_a_call_is_measured(autojump_clock: MockClock) -> None:
    agent = fake_agent(llm=FakeLLM(answer=lambda m: TEN), tts=FakeTTS(0.5), greeting="Hi.")
    metrics = Metrics()

    async def answer(call: Call) -> None:
        await call.converse(agent)

    caller = (
        ScriptedCaller().listens().says("one").pauses(0.16).says("two").pauses(2)
        .says("wait please").listens().hangs_up()
    )  # fmt: skip
    async with memory_server(converse_with(answer, metrics.observe)) as house:
        async with trio.open_nursery() as nursery:
            websocket = await wrap_client_stream(
                nursery, house.connect(), "agent.test", "/media-stream"
            )
            await caller.talk(websocket)
            await house.streams.wait_empty()
            nursery.cancel_scope.cancel()
    found = samples(await metrics.text())
    assert found["voicecore_active_calls"] == 0
    assert found["voicecore_calls_total{by=caller}"] == 1
    assert found["voicecore_response_gap_seconds_count"] == 1
    assert found["voicecore_response_gap_seconds_sum"] == pytest.approx(0.6, abs=0.03)
    assert found["voicecore_stage_seconds_sum{stage=tts}"] == pytest.approx(0.5, abs=0.01)
    assert found["voicecore_speculations_total{outcome=kept}"] == 1
    assert found["voicecore_speculations_total{outcome=lost}"] == 1
    assert found["voicecore_llm_tokens_total{kind=lost}"] == 10
    assert found["voicecore_barge_in_reaction_seconds_count"] == 1
    assert found["voicecore_underruns_total{cause=late}"] == 0


async def test_a_recorded_call_is_measured_beside_streams() -> None:
    metrics = Metrics()
    turn = {"gap": 2.5, "fetch": 0.3, "stt": 0.5, "speculated": False, "flow": "recording"}
    metrics.observe("CA1", "recording flow started", 0.0, {"flow": "recording"})
    metrics.observe("CA1", "turn done", 3.0, turn)
    found = samples(await metrics.text())
    assert found["voicecore_active_calls"] == 1
    assert found["voicecore_recorded_response_gap_seconds_sum"] == 2.5
    assert found["voicecore_response_gap_seconds_count"] == 0
    assert found["voicecore_stage_seconds_sum{stage=fetch}"] == 0.3
    metrics.observe("CA1", "call ended", 9.0, {"reason": "agent", "flow": "recording"})
    found = samples(await metrics.text())
    assert found["voicecore_active_calls"] == 0
    assert found["voicecore_calls_total{by=agent}"] == 1


async def test_totals_that_others_keep_are_followed() -> None:
    errors = ("provider_errors", "openai", "busy")
    totals = {("cache_hits",): 3.0, ("cache_saved_seconds",): 0.5, ("cache_bytes",): 1000.0}
    metrics = Metrics(lambda: totals)
    assert samples(await metrics.text())["voicecore_tts_cache_hits_total"] == 3
    totals.update({("cache_hits",): 5.0, ("cache_bytes",): 400.0, errors: 2.0})
    found = samples(await metrics.text())
    assert found["voicecore_tts_cache_hits_total"] == 5
    assert found["voicecore_tts_cache_bytes"] == 400
    assert found["voicecore_tts_cache_saved_seconds_total"] == 0.5
    assert found["voicecore_provider_errors_total{kind=busy,provider=openai}"] == 2


async def test_what_comes_before_the_meters_have_loaded_is_counted_later() -> None:
    metrics = Metrics()
    failure = {"provider": "openai", "fault": "busy"}
    for _ in range(WAITING + 1):
        metrics.observe("CA1", "provider failed", 0.1, failure)
    metrics.observe("CA1", "something new", 0.1, {})
    found = samples(await metrics.text())
    assert found["voicecore_failed_turns_total{kind=busy,provider=openai}"] == WAITING - 1


async def test_calls_that_are_placed_and_rest_that_fails_are_counted() -> None:
    metrics = Metrics()
    metrics.observe("CA1", "call placed", 0.0, {"outcome": "placed"})
    metrics.observe("", "call placed", 0.0, {"outcome": "busy"})
    metrics.observe("", "rest failed", 0.0, {"fault": "busy"})
    found = samples(await metrics.text())
    assert found["voicecore_calls_placed_total{outcome=placed}"] == 1
    assert found["voicecore_calls_placed_total{outcome=busy}"] == 1
    assert found["voicecore_rest_errors_total{kind=busy}"] == 1


async def test_a_stalled_event_loop_is_noticed(autojump_clock: MockClock) -> None:
    metrics = Metrics()
    await metrics.text()  # loads the meters, in a thread that virtual time does not wait for
    async with trio.open_nursery() as nursery:
        nursery.start_soon(metrics.run)
        await trio.sleep(1.05)
        nursery.cancel_scope.cancel()
    assert samples(await metrics.text())["voicecore_event_loop_stall_seconds_count"] >= 8


async def test_the_route_answers_with_prometheus_text() -> None:
    async with memory_server() as house:
        answer = await ask(house.connect(), get("/metrics"))
        assert answer.status == 200
        assert answer.headers["content-type"].startswith("text/plain; version=")
        assert samples(answer.body)["voicecore_active_calls"] == 0
        assert (await ask(house.connect(), post("/metrics"))).status == 405


async def nobody(call: Call) -> None:
    raise AssertionError


async def test_a_webhook_warms_the_providers_up_and_its_failure_is_its_own() -> None:
    warmed = trio.Event()

    async def warm_up() -> None:
        warmed.set()
        raise ZeroDivisionError("a bug")

    async with trio.open_nursery() as nursery:
        server = await nursery.start(partial(serve, nobody, settings(), warm_up=warm_up))
        async with await trio.open_tcp_stream("127.0.0.1", server.port) as stream:
            answer = await ask(stream, post("/voice-stream", f"CallSid={CALL_SID}".encode()))
            assert answer.status == 200
            with trio.fail_after(20):
                await warmed.wait()
            assert (await ask(stream, get("/healthz"))).status == 200
        nursery.cancel_scope.cancel()


async def test_nothing_is_warmed_up_for_a_call_that_is_turned_away() -> None:
    async def warm_up() -> None:
        raise AssertionError

    async with trio.open_nursery() as nursery:
        given = settings(twilio_auth_token="secret")
        server = await nursery.start(partial(serve, nobody, given, warm_up=warm_up))
        async with await trio.open_tcp_stream("127.0.0.1", server.port) as stream:
            answer = await ask(stream, post("/voice-stream", f"CallSid={CALL_SID}".encode()))
            assert answer.status == 403
        nursery.cancel_scope.cancel()
