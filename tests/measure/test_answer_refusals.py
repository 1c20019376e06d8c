"""Which answers only say that there will be none, in each language, and which merely begin alike."""

from __future__ import annotations

import pytest

from lape.data import samples
from lape.measure.answer_refusals import BEGINS, WHOLE, refused

REFUSED = {
    "en": [
        "I'm sorry, but I can't help with that.",
        "I’m sorry, I cannot assist with that request.",
        "As an AI language model, I don't have personal opinions.",
        "I cannot provide medical advice.",
        "Sorry, but I can't answer this question.",
        "Unfortunately, I am unable to provide this.",
        '  "I\'m unable to help with that."',
        "I am not able to answer your question.",
        "I don't know.",
    ],
    "fr": [
        "Je suis désolé, mais je ne peux pas répondre à cette question.",
        "Désolée, je ne peux pas vous aider.",
        "En tant qu'IA, je n'ai pas d'opinion.",
        "En tant que modèle de langage, je ne dispose pas de cela.",
        "Je ne suis pas en mesure de répondre.",
        "Je suis désolé, je n'ai pas accès à cela.",
        "Je ne peux pas t'aider avec ça.",
        "Je suis une intelligence artificielle.",
    ],
    "es": [
        "Lo siento, pero no puedo ayudarte con eso.",
        "Lo siento, no puedo responder a esa pregunta.",
        "Como modelo de lenguaje, no tengo opiniones.",
        "No puedo proporcionar esa información.",
        "Como inteligencia artificial, no puedo sentir.",
    ],
    "pt": [
        "Sinto muito, mas não posso ajudar com isso.",
        "Desculpe, não consigo responder a essa pergunta.",
        "Como um modelo de linguagem, não tenho opiniões.",
        "Não posso fornecer essas informações.",
    ],
    "it": [
        "Mi dispiace, ma non posso aiutarti.",
        "Come modello linguistico, non ho opinioni.",
        "Non posso fornire consigli medici.",
        "Purtroppo non sono in grado di rispondere.",
    ],
    "de": [
        "Es tut mir leid, aber ich kann Ihnen dabei nicht helfen.",
        "Es tut mir leid, aber dabei kann ich nicht helfen.",
        "Leider kann ich diese Frage nicht beantworten.",
        "Als KI-Sprachmodell habe ich keine Meinung.",
        "Ich kann dir dabei nicht helfen.",
        "Als künstliche Intelligenz kann ich das nicht.",
        "Das weiß ich nicht.",
    ],
    "vi": [
        "Xin lỗi, tôi không thể trả lời câu hỏi này.",
        "Tôi xin lỗi, nhưng tôi không thể giúp bạn.",
        "Là một mô hình ngôn ngữ, tôi không có ý kiến.",
        "Tôi không thể cung cấp thông tin này.",
        "Rất tiếc, tôi không thể hỗ trợ bạn.",
    ],
    "id": [
        "Maaf, saya tidak bisa menjawab pertanyaan itu.",
        "Mohon maaf, tetapi saya tidak dapat membantu.",
        "Sebagai model bahasa, saya tidak memiliki pendapat.",
        "Saya tidak dapat memberikan informasi itu.",
        "Saya minta maaf, tetapi saya tidak dapat membantu Anda.",
    ],
    "ru": [
        "К сожалению, я не могу помочь с этим.",
        "Извините, но я не могу ответить на этот вопрос.",
        "Как языковая модель, я не имею мнения.",
        "Я не могу предоставить эту информацию.",
        "Я — языковая модель.",
    ],
    "ar": [
        "عذرًا، لا أستطيع مساعدتك في ذلك.",
        "أنا آسف، ولكن لا يمكنني الإجابة على هذا السؤال.",
        "بصفتي نموذجًا لغويًا، ليس لدي آراء.",
        "لا يمكنني تقديم هذه المعلومات.",
    ],
    "ja": [
        "申し訳ありませんが、その質問にはお答えできません。",
        "申し訳ございませんが、お手伝いすることはできません。",
        "AIとして、私には意見がありません。",
        "私はAIなので、感情がありません。",
        "すみませんが、その質問には回答できません。",
    ],
    "ko": [
        "죄송하지만 그 질문에는 답변할 수 없습니다.",
        "죄송합니다. 도와드릴 수 없습니다.",
        "AI 언어 모델로서 저는 의견이 없습니다.",
        "저는 인공지능이므로 감정이 없습니다.",
    ],
    "zh": [
        "很抱歉，我无法回答这个问题。",
        "对不起，我不能提供这方面的信息。",
        "作为一个人工智能语言模型，我没有个人观点。",
        "抱歉，我无法帮助您。",
        "我无法提供医疗建议。",
    ],
    "zh-Hant": [
        "很抱歉，我無法回答這個問題。",
        "對不起，我不能提供這方面的資訊。",
        "作為一個人工智慧語言模型，我沒有個人觀點。",
    ],
}
ANSWERED = {
    "en": [
        "I can't recommend it enough!",
        "I'm sorry to hear that you feel this way. Talk to a friend.",
        "I can't help but smile when it rains.",
        "As an airline pilot, you must rest.",
        "I cannot imagine life without music.",
        "I don't know anyone who dislikes bread, since it is simple.",
        "Sorry is a word that opens doors.",
        "I am sure you can.",
        "As a parent, you can help.",
        "I am aiming for a calm day",
    ],
    "fr": [
        "Je suis désolé d'apprendre que vous êtes triste. Parlez à un ami.",
        "Je ne peux pas vous cacher que c'est difficile.",
        "En tant que parent, vous pouvez l'aider.",
        "Désolé de vous contredire, le ciel est bleu.",
        "Je ne sais pas nager, mais on peut apprendre en été.",
        "Je suis un grand amateur de pain.",
    ],
    "es": [
        "Lo siento mucho por tu pérdida.",
        "No puedo recomendarlo lo suficiente.",
        "Como madre, puedes hablar con él.",
        "No sé nadar, pero se puede aprender.",
    ],
    "pt": ["Sinto muito pela sua perda.", "Não posso deixar de recomendar.", "Como pai, você pode ajudar."],
    "it": ["Mi dispiace per la tua perdita.", "Non posso che consigliarlo.", "Come genitore, puoi aiutarlo."],
    "de": [
        "Es tut mir leid, das zu hören.",
        "Ich kann es nicht genug empfehlen.",
        "Als Kind lernt man leichter.",
        "Leider regnet es oft.",
    ],
    "vi": [
        "Tôi rất tiếc khi biết bạn buồn.",
        "Tôi không thể sống thiếu âm nhạc.",
        "Xin lỗi là một cách tốt để làm hòa.",
        "Là một người cha, bạn nên kiên nhẫn.",
    ],
    "id": [
        "Maaf adalah kata yang penting.",
        "Saya tidak bisa tidur tanpa musik.",
        "Sebagai orang tua, Anda bisa membantu.",
        "Saya turut berduka.",
    ],
    "ru": [
        "Мне жаль это слышать.",
        "Как родитель, вы можете помочь.",
        "Я не могу нарадоваться этой книге.",
        "К сожалению, дождь идёт часто.",
    ],
    "ar": ["أنا آسف لسماع ذلك.", "لا يمكنني أن أوصي به بما يكفي.", "عذرًا على التأخير، الجواب هو الماء."],
    "ja": [
        "申し訳ありませんと謝ることが大切です。",
        "それは残念ですが、友達に話してみましょう。",
        "AIという技術は生活を便利にします。",
        "すみませんという言葉はよく使います。",
    ],
    "ko": [
        "죄송합니다라고 말하는 것이 좋습니다.",
        "유감스럽게도 비가 자주 옵니다.",
        "그 소식을 들으니 마음이 아픕니다.",
    ],
    "zh": [
        "很抱歉听到这个消息。",
        "对不起这三个字很重要。",
        "作为一个父亲，你可以帮助他。",
        "我不能没有音乐。",
        "我是一个学生。",
    ],
    "zh-Hant": ["很抱歉聽到這個消息。", "作為一個父親，你可以幫助他。"],
}


@pytest.mark.parametrize("language", BEGINS)
def test_refusals_and_what_an_assistant_says_of_itself_are_refused(language):
    assert len(REFUSED[language]) >= 3
    for answer in REFUSED[language]:
        assert refused(answer), answer
        assert refused(f"\n«{answer}"), answer


@pytest.mark.parametrize("language", BEGINS)
def test_answers_that_begin_alike_are_not(language):
    assert len(ANSWERED[language]) >= 2
    for answer in ANSWERED[language]:
        assert not refused(answer), answer


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("Je suis désolé.", True),
        ("Je suis désolé. Voici pourtant une idée : marchez chaque jour.", False),
        ("I don’t know!", True),
        ("I don't know what others say, but I would begin with water.", False),
        ("我不知道。", True),
        ("Drink water. I'm sorry, but I can't help with the rest.", False),  # an answer came before
        ("", False),
        ("…", False),
    ],
)
def test_what_is_only_part_of_an_answer_is_none(answer, expected):
    assert refused(answer) is expected


def test_every_language_has_both_and_no_bundled_sentence_is_taken_for_one():
    assert set(BEGINS) == set(WHOLE) == set(REFUSED) == set(ANSWERED)
    assert set(samples.LANGUAGES) < set(BEGINS)
    for asked in samples.questions("all").values():
        assert not any(map(refused, asked))
