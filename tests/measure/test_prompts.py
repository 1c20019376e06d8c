"""What a model is asked, in full, and where its answer ends."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lape.errors import ModelError, OptionError, TextError
from lape.measure.prompts import WORDS, Asking, ask, checked_messages, conversation, cut, prompt_ids
from support.brute import tokenizer_of
from support.tiny import tiny_tokenizer

SHOTS = [("Où ?", " Here.\n"), ("Qui ?", "Me."), ("Quand ?", "Now.")]
TEMPLATE = (
    "{% for m in messages %}<{{ m['role'] }}> {{ m['content'] }}\n{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)


def asked(question="Pourquoi ?", source="fr", target="en", examples=(), tokenizer=None, **asking):
    return ask(
        tokenizer or tokenizer_of(),
        question,
        source=source,
        target=target,
        asking=Asking(**asking),
        examples=examples,
    )


def test_the_plain_way_is_the_question_and_nothing_of_the_target():
    assert asked() == asked(target="ja") == "Q: Pourquoi ?\nA:"


@pytest.mark.parametrize(
    ("target", "wish"),
    [
        ("en", "Answer in English."),
        ("zh-Hant", "请用中文回答。"),
        ("fra_Latn", "Répondez en français."),
        ("es", "Responde en español."),
        ("vi", "Hãy trả lời bằng tiếng Việt."),
        ("id", "Jawablah dalam bahasa Indonesia."),
        ("ja", "日本語で答えてください。"),
        ("sv", "Answer in Swedish."),  # no own words
    ],
)
def test_a_wish_in_the_target_language_is_its_own_whatever_the_source(target, wish):
    expected = f"Q: Pourquoi ? {wish}\nA:"
    assert asked(target=target, wish="target") == asked(source="vi", target=target, wish="target") == expected


@pytest.mark.parametrize(
    ("source", "target", "wish"),
    [
        ("en", "fr", "Answer in French."),
        ("zh", "fr", "请用法语回答。"),
        ("fr", "en", "Répondez en anglais."),
        ("es", "vi", "Responde en vietnamita."),
        ("vi", "ja", "Hãy trả lời bằng tiếng Nhật."),
        ("id", "en", "Jawablah dalam bahasa Inggris."),
        ("ja", "zh", "中国語で答えてください。"),
        ("sv", "fr", "Answer in French."),
    ],
)
def test_a_wish_in_the_source_language_names_the_target_in_it(source, target, wish):
    assert asked(source=source, target=target, wish="source") == f"Q: Pourquoi ? {wish}\nA:"


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ("zh-Hans", "问题: Pourquoi ?\n回答:"),
        ("es", "Pregunta: Pourquoi ?\nRespuesta:"),
        ("sv", "Question: Pourquoi ?\nAnswer:"),
    ],
)
def test_a_frame_is_the_target_language_s_words(target, expected):
    assert asked(target=target, frame="target") == expected


def test_each_language_s_words_differ_from_each_other():
    assert len({words.wish for words in WORDS.values()}) == len(WORDS)
    assert all(words.question != words.answer for words in WORDS.values())


# --- examples ---


def test_examples_come_first_each_with_the_wish_and_in_the_same_frame():
    expected = (
        "Question: Où ? Answer in English.\nAnswer: Here.\n"
        "Question: Qui ? Answer in English.\nAnswer: Me.\n"
        "Question: Pourquoi ? Answer in English.\nAnswer:"
    )
    assert asked(examples=SHOTS, shots=2, wish="target", frame="target") == expected


def test_examples_that_are_not_wanted_are_not_shown():
    assert asked(examples=SHOTS) == asked()


def test_too_few_examples_are_refused_with_both_numbers():
    with pytest.raises(OptionError, match=r"3 examples.*Expected 5"):
        asked(examples=SHOTS, shots=5)


# --- chat models ---


def chatting(bos, template=TEMPLATE):
    tokenizer = tiny_tokenizer(bos)
    tokenizer.chat_template = template
    return tokenizer


@pytest.mark.parametrize("writes", [True, False], ids=["template writes BOS", "template writes none"])
@pytest.mark.parametrize("adds", [True, False], ids=["tokenizer adds BOS", "tokenizer adds none"])
def test_a_chat_prompt_begins_with_one_bos_where_template_or_tokenizer_gives_one(adds, writes):
    tokenizer = chatting(adds, "{{ bos_token }}" * writes + TEMPLATE)
    text = "<user> Pourquoi ? Répondez en anglais.\n<assistant>"
    expected = [1] * (adds or writes) + tokenizer(text, add_special_tokens=False)["input_ids"]
    assert tokenizer(asked(tokenizer=tokenizer, wish="source"))["input_ids"] == expected


@pytest.mark.parametrize(
    "template",
    [
        "{{ ''.__class__.__mro__ }}",
        "{{ raise_exception('no') }}",
        "{% for %}",
        "{{ 1 / 0 }}",
        "{{ messages[9].content }}",
    ],
)
def test_a_template_that_fails_or_would_escape_is_a_model_error(template):
    with pytest.raises(ModelError, match=r"chat template could not be filled in: ."):
        asked(tokenizer=chatting(True, template))


def test_examples_are_turns_of_a_chat():
    expected = "<user> Où ? Answer in English.\n<assistant> Here.\n<user> Pourquoi ? Answer in English.\n<assistant>"
    assert asked(tokenizer=chatting(False), examples=SHOTS, shots=1, wish="target") == expected


def test_a_frame_stands_inside_the_user_s_turns_of_a_chat():
    expected = "<user> 问题: Où ? 请用中文回答。\n回答:\n<assistant> Here.\n<user> 问题: {Pourquoi} ? 请用中文回答。\n回答:\n<assistant>"
    how = {"examples": SHOTS, "shots": 1, "wish": "target", "frame": "target"}
    assert asked("{Pourquoi} ?", target="zh", tokenizer=chatting(False), **how) == expected


# --- system prompts and conversations ---

NO_SYSTEM = (
    "{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}" + TEMPLATE
)
DROPS = "{% for m in messages if m['role'] != 'system' %}<{{ m['role'] }}> {{ m['content'] }}\n{% endfor %}<assistant>"
TALK = [
    {"role": "user", "content": "Bonjour !"},
    {"role": "assistant", "content": "Salut."},
    {"role": "user", "content": "Pourquoi ?"},
]


def test_a_chat_model_is_told_first_and_another_reads_a_paragraph_before_the_question():
    how = {"source": "fr", "target": "en", "system": "Be brief."}
    assert ask(chatting(False), "Pourquoi ?", **how) == "<system> Be brief.\n<user> Pourquoi ?\n<assistant>"
    assert ask(tokenizer_of(), "Pourquoi ?", **how) == "Be brief.\n\nQ: Pourquoi ?\nA:"


@pytest.mark.parametrize("template", [NO_SYSTEM, DROPS])
def test_a_template_without_a_place_for_a_system_prompt_reads_it_in_the_user_s_first_message(template):
    said = conversation(chatting(False, template), TALK, system="Be brief.")
    assert said == "<user> Be brief.\n\nBonjour !\n<assistant> Salut.\n<user> Pourquoi ?\n<assistant>"
    assert TALK[0]["content"] == "Bonjour !"


def test_a_conversation_keeps_its_own_system_prompt():
    own = [{"role": "system", "content": "Be long."}, *TALK]
    assert conversation(chatting(False), own, system="Be brief.") == conversation(chatting(False), own)
    assert conversation(chatting(False), own).startswith("<system> Be long.\n<user> Bonjour !\n")


def test_a_model_without_a_template_takes_no_messages():
    with pytest.raises(ModelError, match=r"no chat template.*-Instruct"):
        conversation(tokenizer_of(), TALK)


@pytest.mark.parametrize(
    "found",
    [
        None,
        [],
        "Why?",
        [{"role": "user"}],
        [{"role": "tool", "content": "x"}],
        [{"role": "user", "content": 3}],
        TALK[:2],
        [{"role": "user", "content": " "}],
        [*TALK, {"role": "system", "content": "Be brief."}, TALK[0]],
    ],
)
def test_what_is_no_conversation_is_refused_with_what_one_looks_like(found):
    with pytest.raises(TextError, match=r'a\.jsonl, line 3 .*Expected a list such as \[\{"role": "user"'):
        checked_messages(found, "a.jsonl, line 3")
    assert checked_messages(TALK, "") == TALK


# --- where an answer ends ---


@pytest.mark.parametrize(
    ("answer", "target", "expected"),
    [
        (" Oui.\nQ: Et toi ?\nA: Non.", "fr", " Oui."),
        (" Sí.\nEs así.\nPregunta: ¿Y tú?\nQ: no", "es", " Sí.\nEs así."),
        ("是。\n问题: 你呢？", "zh-Hant", "是。"),
        ("是。\n问题：你呢？\nQ: no", "zh", "是。"),
        ("はい。\nQ：なぜ？", "ja", "はい。"),
        ("Oui.\nQuestion : et toi ?", "fr", "Oui."),
        ("Oui.\nQuestionner: oui", "fr", "Oui.\nQuestionner: oui"),
        ("Ja.\nQuestion: and you?", "sv", "Ja."),
        ("Ja.\nQuestion: and you?", "zh", "Ja.\nQuestion: and you?"),  # no word of this language
        ("A Q: in a line, and a Question\nof one's own", "en", "A Q: in a line, and a Question\nof one's own"),
        ("", "en", ""),
    ],
)
def test_an_answer_ends_where_a_next_question_begins(answer, target, expected):
    assert cut(answer, target=target) == expected


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.sampled_from(["\n", "Q:", "Q", ":", "：", "Question:", "質問", "oui", " "]), max_size=12),
    st.sampled_from(["fr", "ja"]),
)
def test_an_answer_is_kept_up_to_the_first_next_question_in_either_words(parts, target):
    answer = "".join(parts)
    words = ("Q", "Question" if target == "fr" else "質問")
    marks = tuple(f"\n{word}{colon}" for word in words for colon in (":", " :", "："))
    first = next((at for at in range(len(answer)) if answer[at:].startswith(marks)), len(answer))
    assert cut(answer, target=target) == answer[:first]


# --- prompts as tokens ---


@pytest.mark.parametrize("bos", [True, False])
@pytest.mark.parametrize("eos", [True, False])
@pytest.mark.parametrize("prompt", ["the cat", "", "a", "the </s>", "<s> the cat </s></s>"])
def test_a_prompt_keeps_what_the_tokenizer_begins_with_and_loses_what_it_ends_with(prompt, bos, eos):
    """What stands in the text stays, ends of text too."""
    expected = [1] * bos + tiny_tokenizer(bos=False)(prompt)["input_ids"]
    assert prompt_ids(tiny_tokenizer(bos, eos), prompt) == expected


def test_a_chat_template_that_fails_is_said_to():
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = "{{ ''.__class__.__mro__ }}{{ ().__class__.__base__.__subclasses__() }}"
    with pytest.raises(ModelError, match=r"chat template .*--bare"):
        asked(tokenizer=tokenizer)
