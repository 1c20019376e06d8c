"""How a question is put to a model: plain, with a wish for a language, in the target language's frame, after examples; and conversations.

A chat model is asked in its own template, with a system prompt where one is given; this is the only place that knows how.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from lape.data.language_id import base
from lape.errors import ModelError, OptionError, TextError, foreign


@dataclass(frozen=True)
class Words:
    """A language's words for asking. `wish` asks for an answer in it, in its own words."""

    question: str
    answer: str
    wish: str


_PLAIN = ("Q", "A")
WORDS = {
    "en": Words("Question", "Answer", "Answer in English."),
    "zh": Words("问题", "回答", "请用中文回答。"),
    "fr": Words("Question", "Réponse", "Répondez en français."),
    "es": Words("Pregunta", "Respuesta", "Responde en español."),
    "vi": Words("Câu hỏi", "Trả lời", "Hãy trả lời bằng tiếng Việt."),
    "id": Words("Pertanyaan", "Jawaban", "Jawablah dalam bahasa Indonesia."),
    "ja": Words("質問", "回答", "日本語で答えてください。"),
    "de": Words("Frage", "Antwort", "Antworte auf Deutsch."),
    "it": Words("Domanda", "Risposta", "Rispondi in italiano."),
    "pt": Words("Pergunta", "Resposta", "Responda em português."),
    "nl": Words("Vraag", "Antwoord", "Antwoord in het Nederlands."),
    "pl": Words("Pytanie", "Odpowiedź", "Odpowiedz po polsku."),
    "ru": Words("Вопрос", "Ответ", "Ответьте на русском языке."),
    "ar": Words("سؤال", "جواب", "أجب باللغة العربية."),
    "ko": Words("질문", "답변", "한국어로 대답해 주세요."),
    "tr": Words("Soru", "Cevap", "Türkçe cevap ver."),
}
"""Languages whose own words are known; others are asked with English words and the language's name."""
WISHES = {
    "en": "Answer in {name}.",
    "zh": "请用{name}回答。",
    "fr": "Répondez en {name}.",
    "es": "Responde en {name}.",
    "vi": "Hãy trả lời bằng {name}.",
    "id": "Jawablah dalam bahasa {name}.",
    "ja": "{name}で答えてください。",
}
"""How to ask for another language in one's own words; `{name}` is that language's name, in the asking language."""


@dataclass(frozen=True)
class Asking:
    """A way of asking. The plain one is `Q: …` / `A:`, or the bare question in a chat model's template."""

    wish: Literal["none", "source", "target"] = "none"
    """Ask for the target language: not at all, in the source language, or in the target language."""
    frame: Literal["plain", "target"] = "plain"
    """The words around question and answer: Q and A, or those of the target language."""
    shots: int = 0
    """Examples before it: questions in the source language with answers in the target language."""


PLAIN = Asking()
Message: TypeAlias = dict[str, str]
"""One message of a conversation: who says it (`role`), and what (`content`)."""
ROLES = ("system", "user", "assistant")
_THINKING = "enable_thinking"
"""What templates call their switch."""


def ask(
    tokenizer: Any,
    question: str,
    *,
    source: str,
    target: str,
    asking: Asking = PLAIN,
    examples: Sequence[tuple[str, str]] = (),
    system: str | None = None,
    thinking: bool | None = None,
) -> str:
    """The prompt's text, without the tokenizer's own special tokens where it adds them itself.

    `system`: what a chat model is told before; other models read it as a paragraph before the question. `thinking`: see `conversation`.
    Raises OptionError where fewer examples are given than `asking` wants.
    """
    if len(examples) < asking.shots:
        raise OptionError(f"{len(examples)} examples were given. Expected {asking.shots}.")
    shots = examples[: asking.shots]
    wish = wished(source, target, asking)
    words = WORDS.get(base(target), WORDS["en"])
    if getattr(tokenizer, "chat_template", None):
        frame = f"{words.question}: {{}}\n{words.answer}:" if asking.frame == "target" else "{}"
        exchanges = [(frame.format(_with(one, wish)), answer) for one, answer in (*shots, (question, ""))]
        return chat(tokenizer, exchanges, system=system, thinking=thinking)
    q, a = (words.question, words.answer) if asking.frame == "target" else _PLAIN
    parts = [f"{q}: {_with(one, wish)}\n{a}: {answer.strip()}\n" for one, answer in shots]
    before = [f"{system}\n\n"] if system else []
    return "".join([*before, *parts, f"{q}: {_with(question, wish)}\n{a}:"])


def prompt_ids(tokenizer: Any, prompt: str) -> list[int]:
    """(tokens,) ids of a text to go on with: with the special tokens that the tokenizer begins with, without any it ends with."""
    ids, ending = list(tokenizer(prompt)["input_ids"]), _ending(tokenizer)
    return ids[: -len(ending)] if ending and ids[-len(ending) :] == ending else ids


def _ending(tokenizer: Any) -> list[int]:
    """The ids that a tokenizer puts after a text, such as EOS."""
    whole, text = (list(tokenizer("a", add_special_tokens=special)["input_ids"]) for special in (True, False))
    starts = (at for at in range(len(whole) - len(text) + 1) if whole[at : at + len(text)] == text)
    return whole[next(starts, len(whole)) + len(text) :]


def stops(target: str) -> list[str]:
    """How a next question begins that a model asks itself: there an answer is over."""
    words = WORDS.get(base(target), WORDS["en"])
    return [f"\n{word}{colon}" for word in dict.fromkeys((_PLAIN[0], words.question)) for colon in (":", "：", " :")]


def first_of(text: str, stops: Sequence[str]) -> int:
    """Where the first of `stops` begins in a text; its length where there is none."""
    return min([at for stop in stops if (at := text.find(stop)) >= 0], default=len(text))


def cut(answer: str, *, target: str) -> str:
    """An answer up to where the model goes on with a next question of its own."""
    return answer[: first_of(answer, stops(target))]


def _with(question: str, wish: str) -> str:
    return f"{question} {wish}" if wish else question


def wished(source: str, target: str, asking: Asking) -> str:
    """How the target language is asked for, in words of the source or of the target language; empty where it is not."""
    if asking.wish == "none":
        return ""
    if asking.wish == "target" and base(target) in WORDS:
        return WORDS[base(target)].wish
    words = base(source) if asking.wish == "source" else "en"
    pattern = WISHES.get(words, WISHES["en"])
    name = language_name(target, words if words in WISHES else "en")
    within = {"id": name.removeprefix("bahasa "), "vi": name[:1].lower() + name[1:]}  # in the middle of a sentence
    return pattern.format(name=within.get(words, name))


def language_name(language: str, within: str) -> str:
    """A language's name in another language."""
    import langcodes

    return str(langcodes.Language.get(base(language)).display_name(within))


def chat(
    tokenizer: Any,
    exchanges: Sequence[tuple[str, str]],
    *,
    system: str | None = None,
    thinking: bool | None = None,
) -> str:
    """Exchanges in the model's own template, up to where it answers the last. Raises ModelError where that fails."""
    turns: list[Message] = []
    for asked, answer in exchanges:
        turns += [{"role": "user", "content": asked}, {"role": "assistant", "content": answer.strip()}]
    return conversation(tokenizer, turns[:-1], system=system, thinking=thinking)


def conversation(
    tokenizer: Any, messages: Sequence[Message], *, system: str | None = None, thinking: bool | None = None
) -> str:
    """Messages in the model's own template, up to where it answers the last.

    `system` is told first where the messages hold no system prompt. A template that has no place for one, such as Gemma's, reads it at the
    beginning of the first message of the user. `thinking`: whether a model that reasons before it answers should; None: as its template does by itself.
    Raises ModelError for a model without a template, and where filling it in fails, OptionError for `thinking` where the template has no switch for it.
    """
    if not getattr(tokenizer, "chat_template", None):
        raise ModelError(
            "This model has no chat template, so it cannot be given messages. Expected a chat model, often called -it or -Instruct; or ask "
            "single questions."
        )
    if thinking is not None and not may_think(tokenizer):
        raise OptionError(
            f"thinking is {thinking}, and this model's chat template has no switch for it ({_THINKING}). Leave it out."
        )
    turns = [dict(one) for one in messages]
    if system and turns[0]["role"] != "system":
        turns.insert(0, {"role": "system", "content": system})
    how = {} if thinking is None else {_THINKING: thinking}
    if turns[0]["role"] == "system" and not _tells(tokenizer, turns):
        told = turns.pop(0)["content"]
        first = next((one for one in turns if one["role"] == "user"), turns[0])
        first["content"] = f"{told}\n\n{first['content']}"
    return _filled(tokenizer, turns, **how)


def may_think(tokenizer: Any) -> bool:
    """Whether a chat model's template has a switch for reasoning before the answer."""
    return _THINKING in str(getattr(tokenizer, "chat_template", None))


def _tells(tokenizer: Any, turns: Sequence[Message]) -> bool:
    """Whether a template has a place for what the system is told."""
    try:
        return turns[0]["content"].strip() in _filled(tokenizer, turns)
    except ModelError:
        return False


def _filled(tokenizer: Any, turns: Sequence[Message], **how: bool) -> str:
    with foreign(
        ModelError, lambda said: f"The model's chat template could not be filled in: {said} Ask without it: --bare."
    ):
        text = str(tokenizer.apply_chat_template(list(turns), tokenize=False, add_generation_prompt=True, **how))
    added = tokenizer.bos_token if tokenizer("")["input_ids"][:1] == [tokenizer.bos_token_id] else None
    return text.removeprefix(added) if added else text


def checked_messages(found: Any, where: str) -> list[Message]:
    """A conversation as chat models' interfaces write it: messages with a role and a content, the user's last.

    Raises TextError, which begins with `where`, for anything else.
    """
    expected = 'Expected a list such as [{"role": "user", "content": "How are you?"}]'
    if not isinstance(found, list) or not found:
        raise TextError(f"{where} is not a list of messages. {expected}.")
    for one in found:
        good = isinstance(one, dict) and one.get("role") in ROLES and isinstance(one.get("content"), str)
        if not good:
            raise TextError(
                f"{where} has a message without a role ({', '.join(ROLES)}) and a text as content. {expected}."
            )
    if found[-1]["role"] != "user" or not found[-1]["content"].strip():
        raise TextError(
            f"{where} does not end with something the user says, so there is nothing to answer. {expected}."
        )
    if any(one["role"] == "system" for one in found[1:]):
        raise TextError(f"{where} has a system prompt that is not its first message. {expected}.")
    return [{"role": one["role"], "content": one["content"]} for one in found]
