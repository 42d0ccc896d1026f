"""A doctor's appointment line, in Hindi and in English.

    VOICECORE_STT=sarvam VOICECORE_LLM=openai VOICECORE_TTS=sarvam \
        python server.py --agent examples/appointments.py:agent_for

Who answers depends on the call: the number that was dialled, a parameter ``language``, or where the
caller calls from.  Both agents share one calendar, and their tools.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date, datetime, timedelta
from typing import Annotated

from pydantic import Field

from voicecore import Agent, CallInfo, Persona, TurnRules

HINDI_NUMBER = "+911140000000"
"""Whoever dials it is greeted in Hindi, wherever they call from."""

OPENS, CLOSES, SLOT_MINUTES = 9, 17, 30
DAYS_AHEAD = 14

Day = Annotated[date, Field(description="As YYYY-MM-DD.")]
Time = Annotated[str, Field(pattern=r"^\d{2}:\d{2}$", description="As HH:MM, 24 hours.")]

booked: dict[datetime, tuple[str, str]] = {}
"""Name and number by slot.  A practice has a database here."""

PROMPT = (
    "You book appointments for Dr. Rao's practice on the telephone. Your words are spoken: answer"
    " in one or two short sentences, without lists or markup. {language} Find out on which day the"
    " caller wants to come, look with free_times, offer two times, ask for the name, and book with"
    " book_appointment only when the caller has agreed to day and time. Callers may also move or"
    " cancel: cancel_appointment first. Today is known from the tool today. In an emergency tell"
    " them to call 112 and end the call."
)

english = Agent(
    persona=Persona(
        prompt=PROMPT.format(language="Speak English."),
        greeting="Doctor Rao's practice, good day. How can I help you?",
        phrases=("Which day suits you?", "May I have your name?"),
    )
)

hindi = Agent(
    persona=Persona(
        prompt=PROMPT.format(language="Speak Hindi, in Devanagari, politely (आप)."),
        greeting="डॉक्टर राव की क्लिनिक में आपका स्वागत है। मैं आपकी क्या मदद कर सकती हूँ?",
        language="hi-IN",
        phrases=("कौन सा दिन ठीक रहेगा?", "आपका नाम क्या है?"),
    ),
    # Numbers and dates are said with longer pauses than English ones.
    rules=TurnRules(end_silence_ms=400),
    tools=english.tools,
)


def agent_for(parameters: Mapping[str, str]) -> Agent:
    """Pick who answers: by the number that was dialled, the language asked for, the caller."""
    if parameters.get("To") == HINDI_NUMBER or parameters.get("language", "").startswith("hi"):
        return hindi
    return hindi if parameters.get("From", "").startswith("+91") else english


@english.tool
async def today() -> str:
    """Return today's date and the day of the week."""
    return _now().strftime("%A %Y-%m-%d")


@english.tool
async def free_times(day: Day) -> list[str]:
    """Return the times on a day that are still free."""
    return [slot.strftime("%H:%M") for slot in _slots(day) if slot not in booked]


@english.tool(on_barge_in="keep")
async def book_appointment(
    call: CallInfo, day: Day, time: Time, name: Annotated[str, Field(min_length=1, max_length=60)]
) -> str:
    """Book an appointment, once the caller has agreed to day and time.

    Args:
        name: The patient's.
    """
    slot = datetime.fromisoformat(f"{day} {time}")
    if slot not in _slots(day):
        raise LookupError(f"{time} is no time that we have; ask for free_times")
    if slot in booked:
        raise LookupError(f"{time} has just been taken; offer another")
    booked[slot] = (name, call.parameters.get("From", ""))
    return f"Booked for {name}: {slot:%A %Y-%m-%d %H:%M}."


@english.tool(on_barge_in="keep")
async def cancel_appointment(call: CallInfo, name: str) -> str:
    """Cancel the next appointment of a patient who calls from the number that booked it.

    Args:
        name: The patient's.
    """
    owner = (name.casefold(), call.parameters.get("From", ""))
    for slot, (patient, number) in sorted(booked.items()):
        if (patient.casefold(), number) == owner and slot > _now():
            del booked[slot]
            return f"Cancelled: {slot:%A %Y-%m-%d %H:%M}."
    return "There is none under that name and this number."


def _slots(day: date) -> list[datetime]:
    """Return all times of a day: none on Sundays, in the past, or too far ahead."""
    if day.weekday() == 6 or not 0 <= (day - _now().date()).days <= DAYS_AHEAD:
        return []
    first = datetime.combine(day, datetime.min.time()).replace(hour=OPENS)
    count = (CLOSES - OPENS) * 60 // SLOT_MINUTES
    slots = (first + timedelta(minutes=SLOT_MINUTES * number) for number in range(count))
    return [slot for slot in slots if slot > _now()]


def _now() -> datetime:
    return datetime.now()
