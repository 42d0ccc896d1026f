"""Endpointing by content: which words sound as if more will come, and which do not."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from voicecore.dialogue.endpointing import TAIL, may_go_on


def phrases(text: str) -> list[str]:
    return [phrase.strip() for phrase in text.replace("\n", " ").split("|")]


ENGLISH_UNFINISHED = phrases("""
    four one five | my number is four one five | 415 | 415 55 | My number is 415. | It's 4-1-5 |
    4, 1, 5 | (415) 555 | +1 415 | double five | it's triple nine | nine double |
    four one five dash | four one five um | oh two oh | oh | nine eight seven six five four |
    eight hundred five five five | four fifteen sixty two | zero four four | the code is 2025 |
    one two three | four two four two four two four two | 4242 4242 4242 | my pin is 1234 |
    my phone number is 1-800 | john dot | john dot smith | john dot smith at |
    it's john dot smith at gmail | my email is john dot smith at example | john underscore |
    john underscore smith | my e-mail address is john | my email is john smith at | john.smith@ |
    john.smith@gmail | it's j o h n | j o h n at gmail | j-o-h-n | J.O.H.N. |
    My name is Smith, S M I | s as in sam | b for bravo | booking reference x y 4 |
    john at the rate | john at the rate gmail | it's www dot example | and |
    I want to book a table and | chicken or | I would come but | because | I'm calling because |
    so | okay so | I need the | it's in my | that's a | I would like an | I'd like to | I want to |
    I'd like to book a table for | I'm looking for | the weather in | what is the weather in |
    I live in | an appointment on | I'm flying to | I'm calling about | I'm calling from |
    I would like to speak with | the name of | a table at | um | yes um | I'd like uh |
    let me think | let me see | let's see | well | my number is | my name is | the problem is |
    it's | yes it's | I'm | I'd like | I need | can you | hi this is | how about | what about | if |
    is it more than | book a table for two, | I think... | I think… | I want to book- |
    I need it for my | And. | The. | Um. | I wanted to ask whether | it's Mr. | I spoke to dr |
    because I
""")

ENGLISH_FINISHED = phrases("""
    hello there | what is the weather in paris | book a table for two | yes | no | five | one two |
    twenty | two thirty | nineteen eighty four | twenty twenty six | at five | at 730 |
    at seven thirty | at seven oh five | in 1984 | 2026 | two hundred |
    one hundred and twenty three | 1500 | 1,500 | $45.50 | 12% | 10:30 | 5 p.m. | 5 p m |
    at two a m | count to three | party of four | four or five | room four one five | flight 415 |
    my number is four one five five five five one two three four | 415-555-1234 | (415) 555-1234 |
    +14155551234 | +91 98765 43210 | 555 1234 | five five five one two three four |
    4242 4242 4242 4242 | john@example.com | My email is john.smith@example.co.uk. |
    john dot smith at gmail dot com | j o h n at gmail dot com | john at the rate gmail dot com |
    john at gmail.com | it's on amazon dot com | my email is not working | is your email down |
    see you at noon | i saw it on amazon dot com at noon | a polka dot dress | I live in the u s |
    in the U.S.A. | on t v | plan b | I'd like plan a | a | you and i | that's it | that's all |
    come on in | can I come in | I can't log in | turn it on | put the kettle on | hold on | go on |
    and so on | where are you from | what is it for | who is the table for |
    what are you looking for | that's what I was looking for | something to talk about |
    someone to talk to | who am I speaking with | who should I send it to |
    what are you interested in | yes I do | yes I can | I think so | I don't think so | I hope so |
    I don't want to | I'd love to | nothing to worry about | never heard of it | kind of |
    I've never heard of | what's your name | tell me what the number is |
    do you know what my account number is | who is this | what is this | do you know what I mean |
    thank you very much | I'd like some | can you help me | could you repeat that please |
    okay then | just because | oh my | oh no | as well | for a while | what for | uh-huh | mm-hmm |
    no thank you | Where are you from? | What about? | And? | Is it 415? |
    I'd like to book a table for two. | I think so. | Come on in. | That's what I came for. |
    My name is John. | I'm in! | call me back | goodbye | the first one | wait please | count |
    again please | how much is it | it's a b m w | stop by | I'm just about ready to start |
    to begin with | I can do without | ten dollars | what time do you close |
    how long is it open for | march fifth | which platform is the train from | vitamin a
""")

HINDI_UNFINISHED = phrases("""
    और | मुझे एक टेबल चाहिए और | मैं आना चाहता हूँ लेकिन | मुझे देर हुई क्योंकि | मैंने सुना है कि |
    चाय या | अगर | मेरा नंबर है | मेरा फ़ोन नंबर है | मेरा नाम है | मेरा ईमेल है | मेरा |
    यह किताब और मेरी | एक दो तीन | नौ आठ सात | नाइन एट सेवन | ९८७ | ९८७६५ |
    मेरा नंबर है नौ आठ सात छह | 98765 | डबल नाइन | शून्य एक दो | अं | हाँ तो | रुकिए, सोचने दीजिए |
    john dot | राम डॉट | राम एट द रेट | राम एट द रेट जीमेल | नौ आठ सात। | मैं चाहता हूँ... | हाँ, |
    mera number hai | mujhe table chahiye aur | क्योंकि। | इसलिए | मेरा नंबर ये है
""")

HINDI_FINISHED = phrases("""
    हाँ | नहीं | नमस्ते | मुझे दो लोगों के लिए टेबल चाहिए | दो लोगों के लिए | दिल्ली में |
    सोमवार को | टेबल पर | एक दो | पाँच | एक और | कुछ और | यह मेरा नंबर है | यही मेरा नंबर है |
    आपका नंबर क्या है | क्या यह आपका नंबर है? | मौसम कैसा है | पेरिस का मौसम कैसा है? | ठीक है |
    बता दो | कल सुबह दस बजे | धन्यवाद | मेरा नाम राम है | मेरा नाम राम है। |
    नौ आठ सात छह पाँच चार तीन दो एक शून्य | ९८७६५ ४३२१० | राम डॉट शर्मा एट द रेट जीमेल डॉट कॉम |
    ram@example.com | इसका क्या मतलब | कौन | आप कहाँ से हैं | बस | मुझे समझ नहीं आया। |
    aap kahan the | theek hai
""")

OTHER_UNFINISHED = [
    ("de-DE", "meine Nummer ist 0171"),
    ("de-DE", "0 1 7"),
    ("de-DE", "Ich möchte einen Tisch,"),
    ("fr-FR", "mon numéro est le 06 12 34"),
    ("fr-FR", "je voudrais…"),
    ("es-ES", "mi número es 612"),
    ("ja-JP", "番号は０９０"),
    ("zh-CN", "我的号码是139"),
    ("zh-CN", "你好，"),
    ("ar-EG", "رقمي ٠١٠"),
    ("", "415 55"),
]
OTHER_FINISHED = [
    ("de-DE", "Ich möchte einen Tisch und"),
    ("de-DE", "um"),
    ("fr-FR", "il y a"),
    ("es-ES", "mi casa a"),
    ("pl-PL", "a i o"),
    ("de-DE", "um 1900"),
    ("fr-FR", "06 12 34 56 78"),
    ("ja-JP", "はい。"),
    ("ar-EG", "ما اسمك؟"),
    ("", "hello there"),
    ("not a language", "the"),
]

SAID_ON_THE_PHONE = phrases("""
    hi how are you | i'm calling to make a reservation | can i get a table for four tonight |
    do you have anything available at eight | what time do you open | are you open on sundays |
    are you open on sunday | is there parking nearby | yes please | no thanks |
    that would be great | that works for me | sounds good | sure | that's right | correct |
    no that's wrong | i didn't get that | say that again | what did you say | who are you |
    are you a robot | i want to talk to a human | i want to speak to a person |
    let me talk to somebody | give me a manager | transfer me please | i lost my card |
    my order hasn't arrived | where is my package | when will it get here |
    it was supposed to come yesterday | i ordered it last week | on monday | in the morning |
    tomorrow afternoon | next tuesday at ten | the fifteenth | the fifteenth of may |
    may the fourth | half past six | quarter to nine | six o'clock | about seven |
    around eight or so | two adults and one child | just me | just the two of us |
    there will be six of us | the blue one | the other one | both | either | neither | all of them |
    none of the above | the first option | option two | press one | sales | billing |
    customer service | i forgot my password | i need to reset my password | how do i reset it |
    i can't log on | i can't sign in | it won't turn on | it doesn't turn off |
    the screen is broken | it keeps shutting down | did you try turning it off and on |
    is it plugged in | yes it is | yes i am | no i'm not | i'm not sure | i don't know |
    i have no idea | maybe | probably | never mind | forget it | stop | be quiet |
    one moment please | hang on a second | give me a minute | i'll call you later |
    talk to you later | thanks for your help | thank you so much | thanks so much | bye |
    see you tomorrow | see you then | have a nice day | you too | same to you | good morning |
    good evening | my name is sarah | this is john | it's john smith | john | smith | s smith |
    i live in london | i'm from india | main street | twelve main street | apartment four b |
    the zip code is nine oh two one oh two two two one one | my birthday is june third |
    june third nineteen ninety | i was born in nineteen ninety | i'm thirty two | thirty two |
    a hundred | fifty dollars | about fifty | around fifty percent | three point five |
    two and a half | half an hour | an hour ago | two days | every day | every other week |
    once a month | how much does it cost | how much is that | how long does it take |
    how far is it | how do i get there | what's the address | what's the number |
    which one is cheaper | which one do you recommend | what do you have | what do you recommend |
    what else is there | is that all | is that it | what is that | what was that | whose is it |
    i don't like it | i like it | i'd like that | i'd like one | i'd like two | that's what i want |
    that's what i need | that's what i'd like | if that's what you'd like | whatever you like |
    as you like | as soon as possible | as soon as you can | if you can | if possible | i would |
    i would like to cancel my order | i want to cancel | cancel it | cancel everything |
    change it to seven | move it to friday | make it five | make that three | put me down for two |
    put me through | put it on | leave it on | let him in | bring it in | send it over |
    what's going on | what's on | what movies are on | is the kitchen still open | is he in |
    when does he get in | when does the train get in | what time does the flight come in |
    where do i sign up | where should i go | where do i go to | where is it | where is that |
    where can i park | what is it about | what's it about | what's this about |
    what are you talking about | that's what i'm talking about |
    i don't know what you're talking about | who is calling | who's that | who did you speak to |
    who do i talk to | what should i wait for | what am i paying for | what am i being charged for |
    what did i pay for | what is it made of | what are you thinking of | i can't think of anything |
    not that i can think of | not that i know of | not that i'm aware of | none that i know of |
    i have nothing to add | i have something to tell you | do i need to | do i have to |
    you don't have to | i don't need to | i'm not allowed to | i'm supposed to | i used to |
    if you want to | only if you want to | i'm glad to | happy to | i was told to | try again |
    try it again | i'll try | tell me more | tell me about it | tell me a joke |
    tell me another one | sing me a song | what's the time | what day is it | do you speak spanish |
    in english please | english | hindi | can we switch to hindi | let's do it | let's go |
    let's try that | go ahead | go for it | i'll take it | i'll think about it |
    let me think about it | let me check my calendar | let me see what i can do |
    i'll have to check | the meeting is at ten | it's at ten | ten | ten thirty | eleven fifteen |
    nine to five | monday to friday | from nine to five | between two and four | before noon |
    after six | by six | until six | until tomorrow | no later than six | more than enough |
    better than nothing | better late than never | it's better than that | and you |
    and what about you | but why | so what | so am i | me too | me neither | so do i |
    i think that's it | i guess that's all | that's all i need | that's all i wanted |
    that's all i wanted to know | that's what i thought | that's what it is | that's how it is |
    that's where i am | i know | you know | i see | i understand | i understand that | i'm sorry |
    sorry | sorry about that | excuse me | pardon | pardon me | hello | hello hello |
    are you there | is anybody there | can you hear me | i can't hear you | speak up | louder |
    slow down | hurry up | i'm in a hurry | wait | wait a minute | wait a second | no wait |
    actually no | actually yes | not really | not yet | not now | not today | of course |
    of course not | why not | why | how come | really | okay | ok | alright | all right | fine |
    great | perfect | wonderful | excellent | nice | cool | awesome | yeah | yep | nope | nah |
    mhm | uh huh | right | exactly | absolutely | definitely | certainly | i agree | i accept |
    i confirm | confirmed | continue | next | back | main menu | repeat | help | operator | agent |
    representative | emergency | nine one one | the doctor | i need a doctor |
    i need an appointment | i need an appointment with the doctor | with doctor jones |
    doctor jones | my mother | my mom | it's for my mother | it's for me | it's not mine |
    it's his | it's hers | it's theirs | mine | yours | is it yours | room 12 | seat 14 a |
    row five | gate b four | terminal two | flight ba two four nine | united two thirty |
    it's 72 degrees | 72 | 1000 | 10000 | 50 | 99 | 100 | 3.14 | may 5 2024 | 5/12/1984 |
    on the 5th | 7:30 | 7 30 | 7 o'clock | v i p | u k | a t m | the i r s | my i d | o k
""")

BROKEN_OFF = phrases("""
    my name is john and | i was wondering if | i was wondering whether you could |
    i want to change my reservation from | i want to change my reservation to |
    i need to move it from tuesday to | can you send it to my | can you send it to |
    please send it to the | i'd like to order a | i'd like two large pizzas with |
    one with mushrooms and one with | my address is | the address is | the order number is |
    my account number is | my account number is six six | my account number is six six oh |
    five five five | five five five one two | six one nine | area code six one nine |
    it's area code six one nine | my social is one two three | one two three four five |
    eight eight double oh | nine nine nine double | zero seven seven | oh seven seven double one |
    the confirmation code is a b c | a b c one | k l m | m c d o n | it's spelled s m |
    that's spelled k a | that's s as in sugar | k as in | jane at | jane doe at gmail |
    jane dot doe at | jane underscore | jane underscore doe at yahoo | it's jane dash doe at |
    my email's jane | my email address is jane dot doe | info at | info at example dot |
    i'm not sure but | yes but | no because | no but | well i | i think i | the thing is |
    the reason is | so my question is | my question is | what i wanted to ask is whether |
    could you tell me if | could you tell me the | do you know the | is it possible to |
    is there a | are there any seats for | how do i get to | how much is the | how much is a |
    what's the | what is your | where is the | when is the | who is the | i'm trying to |
    i'm going to | we're going to | i have to | i need to | i've got a | i have an | there's a |
    there's an | it's about my | it's regarding | it's because of | because of the | instead of |
    i'd rather have the | as far as | more of a | on the | in the | at the | for the | with my |
    from my | to my | of my | uh | hmm | er | um i | uh my | let me look | let me check |
    hold on let me see | good morning this is | hello my name is | hi i'm | yes i'd like to |
    no i'd like | actually i'd like to | i would like | we would like to | we'd like a
""")


@pytest.mark.parametrize(
    ("language", "table"), [("en-US", ENGLISH_UNFINISHED), ("hi-IN", HINDI_UNFINISHED)]
)
def test_more_is_to_be_expected(language: str, table: list[str]) -> None:
    assert [words for words in table if not may_go_on(words, language)] == []


@pytest.mark.parametrize(
    ("language", "table"), [("en-US", ENGLISH_FINISHED), ("hi-IN", HINDI_FINISHED)]
)
def test_nobody_waits_for_a_finished_phrase(language: str, table: list[str]) -> None:
    assert [words for words in table if may_go_on(words, language)] == []


def test_digits_and_marks_count_in_any_language() -> None:
    assert [row for row in OTHER_UNFINISHED if not may_go_on(row[1], row[0])] == []


def test_words_of_a_language_that_is_not_known_say_nothing() -> None:
    assert [row for row in OTHER_FINISHED if may_go_on(row[1], row[0])] == []


def test_nobody_waits_for_what_is_commonly_said_on_the_phone() -> None:
    for written in (str, str.capitalize, "{}.".format):
        patient = [words for words in SAID_ON_THE_PHONE if may_go_on(written(words), "en-GB")]
        assert patient == []


def test_more_is_to_be_expected_after_what_is_commonly_broken_off() -> None:
    for written in (str, str.capitalize, "{}...".format):
        assert [words for words in BROKEN_OFF if not may_go_on(written(words), "en-GB")] == []


def test_the_tables_are_long_enough_to_mean_something() -> None:
    assert len(set(ENGLISH_UNFINISHED)) >= 80
    assert len(set(ENGLISH_FINISHED)) >= 80
    assert len(set(HINDI_UNFINISHED)) >= 25
    assert len(set(HINDI_FINISHED)) >= 25


ALL = ENGLISH_UNFINISHED + ENGLISH_FINISHED + HINDI_UNFINISHED + HINDI_FINISHED
LANGUAGES = st.sampled_from(["en-US", "en", "hi-IN", "hi_IN", "de-DE", "", "zz-"])
PIECES = st.sampled_from(
    [*" .,?!@-'+…।4९", "dot", "at", "five", "double", "and", "to", "a", "e-mail is"]
)


@given(st.text() | st.lists(PIECES | st.sampled_from(ALL)).map(" ".join), LANGUAGES | st.text())
def test_any_text_gets_an_answer(words: str, language: str) -> None:
    assert may_go_on(words, language) in (True, False)


@given(st.sampled_from(ALL) | st.lists(PIECES).map(" ".join), LANGUAGES)
def test_a_question_mark_is_an_end_and_a_comma_is_none(words: str, language: str) -> None:
    assert not may_go_on(words + "?", language)
    assert may_go_on(words + "x,", language)


@given(st.sampled_from(ALL), LANGUAGES)
def test_capitals_and_spaces_make_no_difference(words: str, language: str) -> None:
    assert may_go_on(f"  {words.upper()} \n", language) == may_go_on(words, language)


@given(st.sampled_from(ALL), st.text(alphabet="abc def ", min_size=TAIL, max_size=2 * TAIL))
def test_only_the_end_counts(words: str, before: str) -> None:
    """Whatever was said long before: the verdict, and so its cost, is that of the last part."""
    text = f"{before} {words}"
    assert may_go_on(text * 50, "en-US") == may_go_on((text * 50)[-TAIL:], "en-US")
