"""Answers that only say that there will be none: refusals, and what an assistant says of itself instead of answering."""

from __future__ import annotations

import re
import unicodedata
from functools import cache

_A = "(?:a |an |un |une |una |uma |um |un'|ein |eine |sebuah |một )?"

BEGINS: dict[str, tuple[str, ...]] = {
    "en": (
        r"(?:i'm|i am|we're|we are) (?:very |so |really |truly |terribly )?sorry\b[,.;:—–-]* ?(?:but |however,? )?(?:i|we) "
        r"(?:can't|cannot|can not|could not|couldn't|won't|will not|do not|don't|am not able|'m not able|am unable|are unable|am not allowed)\b",
        r"(?:sorry|unfortunately|i apologi[sz]e|my apologies|regrettably)\b[,.;:—–-]* ?(?:but |however,? )?(?:i|we) "
        r"(?:can't|cannot|can not|am unable|are unable|am not able|won't be able|will not be able)\b",
        r"(?:i|we)(?: am|'m| are|'re)? ?(?:can't|cannot|can not|unable to|not able to|not allowed to|won't) (?:directly |really )?"
        r"(?:help (?:you|with)|assist|provide|answer|fulfil|comply|respond|give you|offer|generate|engage|do that|discuss)",
        rf"as {_A}(?:large |advanced )?(?:ai\b|artificial intelligence|language model|virtual assistant|llm\b)",
        rf"(?:i'm|i am) (?:just |only )?{_A}(?:large |virtual )?(?:ai\b|artificial intelligence|language model|llm\b)",
    ),
    "fr": (
        r"(?:je suis|nous sommes) (?:vraiment |sincèrement |sincerement |profondément )?désolée?s?\b[,.;:—–-]* ?(?:mais )?(?:je|nous) n(?:e |')"
        r"(?:peux|pouvons|suis|sommes|sais|savons|dispose|ai|suis) ?(?:pas|malheureusement pas|en mesure)?",
        r"(?:désolée?|pardon|malheureusement|je m'excuse|excusez-moi|toutes mes excuses)\b[,.;:—–-]* ?(?:mais )?je ne (?:peux|suis|puis) pas\b",
        r"je ne (?:peux|puis) (?:malheureusement )?pas (?:vous |t'|te |y |directement )*(?:aider|répondre|fournir|donner|accéder|satisfaire|assister|proposer)",
        r"je ne suis (?:malheureusement )?pas (?:en mesure|capable|autorisée?) (?:de|d'|à)",
        rf"en tant qu(?:e |'){_A}(?:grand )?(?:ia\b|intelligence artificielle|modèle de langage|modèle linguistique|assistante? (?:virtuel|ia))",
        rf"je (?:ne )?suis (?:qu')?{_A}(?:simple |grand )?(?:ia\b|intelligence artificielle|modèle de langage|modèle linguistique|assistante? virtuel)",
    ),
    "es": (
        r"(?:lo siento|lo lamento|perdón|perdona|disculpa|disculpe|lamentablemente|desafortunadamente|desgraciadamente)(?: mucho)?\b[,.;:—–-]* ?"
        r"(?:pero )?(?:yo )?no (?:puedo|podemos|me es posible|estoy en condiciones|soy capaz|tengo (?:la capacidad|acceso|información))\b",
        r"(?:yo )?no puedo (?:ayudar|responder|contestar|proporcionar|ofrecer|cumplir|brindar|darte información|darle información|asistir)",
        rf"como {_A}(?:gran )?(?:ia\b|inteligencia artificial|modelo de lenguaje|modelo lingüístico|asistente (?:virtual|de ia))",
        rf"(?:yo )?(?:solo )?soy (?:solo )?{_A}(?:gran )?(?:ia\b|inteligencia artificial|modelo de lenguaje|modelo lingüístico|asistente virtual)",
    ),
    "pt": (
        r"(?:sinto muito|lamento|desculpe|desculpa|me desculpe|peço desculpas?|infelizmente)\b[,.;:—–-]* ?(?:mas )?(?:eu )?"
        r"não (?:posso|consigo|podemos|sou capaz|estou (?:em condições|autorizad)|tenho (?:acesso|informaç|capacidade))",
        r"(?:eu )?não (?:posso|consigo) (?:te |lhe |o |a )?(?:ajudar|ajudá|responder|fornecer|atender|oferecer|cumprir|auxiliar)",
        rf"como {_A}(?:grande )?(?:ia\b|inteligência artificial|modelo de linguagem|assistente (?:virtual|de ia))",
        rf"(?:eu )?sou (?:apenas )?{_A}(?:grande )?(?:ia\b|inteligência artificial|modelo de linguagem|assistente virtual)",
    ),
    "it": (
        r"(?:mi dispiace|mi spiace|spiacente|scusa|scusami|mi scuso|purtroppo)\b[,.;:—–-]* ?(?:ma )?(?:io )?"
        r"non (?:posso|possiamo|sono in grado|riesco|mi è possibile|ho (?:accesso|informazioni))\b",
        r"(?:io )?non (?:posso|sono in grado di) (?:aiutar|risponder|fornir|assister|soddisfar|offrir)",
        rf"(?:come|in quanto|essendo) {_A}(?:grande )?(?:ia\b|ai\b|intelligenza artificiale|"
        r"modello linguistico|modello di linguaggio|assistente (?:virtuale|ai|ia))",
        rf"(?:io )?sono (?:solo )?{_A}(?:grande )?(?:ia\b|intelligenza artificiale|modello linguistico|modello di linguaggio|assistente virtuale)",
    ),
    "de": (
        r"(?:es )?tut mir (?:sehr |wirklich |aufrichtig )?leid\b[,.;:—–-]* ?(?:aber |"
        r"doch )?(?:(?:ich|dabei|das|dazu|diese|darauf) )+(?:kann|darf|bin nicht|habe kein|verfüge)",
        r"(?:leider|bedauerlicherweise) (?:kann|darf) ich\b[^.!?]{0,60}\b(?:nicht|keine?n?)\b",
        r"(?:entschuldigung|entschuldige|entschuldigen sie|verzeihung|sorry)\b[,.;:—–-]* ?(?:aber )?(?:das |"
        r"dabei |dazu )?(?:ich )?kann (?:ich )?[^.!?]{0,40}\b(?:nicht|keine?n?)\b",
        r"ich kann (?:ihnen |dir |darauf |dabei |dazu |diese (?:frage|anfrage) |hierzu |leider )+(?:nicht|"
        r"keine?n?)\b[^.!?]{0,30}(?:helfen|antworten|beantworten|weiterhelfen|geben|bereitstellen|erfüllen)",
        rf"als {_A}(?:großes |reine )?(?:ki\b|künstliche intelligenz|sprachmodell|virtueller assistent)",
        rf"ich bin (?:nur |lediglich )?{_A}(?:großes )?(?:ki\b|künstliche intelligenz|sprachmodell|virtueller assistent)",
    ),
    "vi": (
        r"(?:tôi |mình |em |chúng tôi )?(?:rất |thành thật |thật )?(?:xin lỗi|rất tiếc|lấy làm tiếc|tiếc)\b[,.;:—–-]* ?(?:nhưng |vì )?(?:là )?"
        r"(?:tôi|mình|em|chúng tôi) (?:hiện )?(?:không thể|chưa thể|không có khả năng|không được phép|không có thông tin)",
        r"(?:tôi|mình) (?:hiện )?không (?:thể|có khả năng) (?:giúp|trả lời|cung cấp|hỗ trợ|đáp ứng|thực hiện yêu cầu)",
        rf"(?:là|với tư cách là|với vai trò là|vì là|tôi là|tôi chỉ là) {_A}(?:mô hình ngôn ngữ|trí tuệ nhân tạo|ai\b|trợ lý (?:ảo|ai|trí tuệ))",
    ),
    "id": (
        r"(?:saya |kami )?(?:mohon |minta |sangat )*maaf\b[,.;:—–-]* ?(?:tetapi |tapi |namun )?(?:saya|kami|aku) "
        r"(?:tidak|belum|tak) (?:bisa|dapat|mampu|memiliki (?:akses|informasi|kemampuan)|punya akses|diizinkan)",
        r"(?:sayangnya|mohon maaf)[,.]? (?:saya|kami) (?:tidak|tak) (?:bisa|dapat|mampu)\b",
        r"(?:saya|kami) (?:tidak|tak) (?:bisa|dapat|mampu) (?:membantu|menjawab|memberikan|memenuhi|menyediakan|melakukan itu)",
        rf"sebagai {_A}(?:model bahasa|ai\b|kecerdasan buatan|asisten (?:ai|virtual))",
        rf"saya (?:adalah |hanyalah |hanya )?{_A}(?:model bahasa|ai\b|kecerdasan buatan|asisten (?:ai|virtual))",
    ),
    "ru": (
        r"(?:к сожалению|извините|извини|простите|прошу прощения|приношу извинения|мне (?:очень )?жаль|сожалею)\b[,.;:—–-]* ?(?:но )?(?:я )?"
        r"(?:не могу|не в состоянии|не способ[её]?н|не имею (?:доступа|возможности)|не умею)\b",
        r"я не могу (?:вам |тебе |на это )?(?:помочь|ответить|предоставить|выполнить|обсуждать|дать ответ)",
        r"(?:как|будучи) (?:большая |большой )?(?:ии\b|искусственный интеллект|"
        r"искусственным интеллектом|языковая модель|языковой моделью|виртуальный ассистент)",
        r"я ?(?:—|–|-)? ?(?:всего лишь |просто )?(?:большая )?(?:ии\b|искусственный интеллект|языковая модель|виртуальный (?:помощник|ассистент))",
    ),
    "ar": (
        r"(?:عذرا|اعذرني|اسف|انا اسف|اسفة|نعتذر|اعتذر|للاسف|معذرة|المعذرة|يؤسفني)[،,. ]* ?(?:و?لكنني |و?لكني |و?لكن |فانا )?(?:انا )?"
        r"(?:لا (?:استطيع|يمكنني|اقدر|املك)|لست قادرا|لست قادرة|غير قادر)",
        r"(?:انا )?لا (?:استطيع|يمكنني) (?:مساعدت|الاجابة|تقديم|المساعدة|تلبية|الرد|توفير)",
        r"(?:بصفتي|كوني|باعتباري|بوصفي|انا مجرد|انا) (?:مجرد )?(?:نموذج(?:ا)? (?:لغوي|لغة|ذكاء)|ذكاء(?:ا)? اصطناعي|مساعد(?:ا)? (?:افتراضي|ذكي|ذكاء))",
    ),
    "ja": (
        r"(?:大変|誠に)?(?:申し訳(?:ありません|ございません|ない(?:です)?)|すみません|すいません|"
        r"ごめんなさい|残念)(?:です|なこと)?(?:が|けど|けれど|ながら)?[、,。]?[^。]{0,40}"
        r"(?:(?:お答え|回答|お手伝い|対応|提供|お応え|ご案内|支援|お力添え)[^。]{0,8}(?:できません|できかねます|いたしかねます|出来ません))",
        r"(?:その|この|こちらの)?ご?(?:質問|要求|リクエスト|依頼|要望)?(?:に(?:は|ついて(?:は)?)?)?(?:私は|"
        r"私には)?、?(?:お答え|お手伝い|回答|お応え)(?:すること)?(?:は|が)?(?:できません|できかねます|出来ません)",
        r"(?:私は|わたしは|私も)?、?(?:単なる|ただの)?(?:ai|人工知能|(?:大規模)?言語モデル|"
        r"バーチャルアシスタント)(?:アシスタント|言語モデル|モデル)?(?:として|なので|であるため|ですので|ですから|だから|です)",
    ),
    "ko": (
        r"(?:정말 |대단히 |매우 )?(?:죄송합니다만|죄송하지만|죄송합니다|미안하지만|미안합니다|"
        r"유감스럽게도|안타깝게도|아쉽게도)[,.]? ?(?:하지만 |그러나 )?[^.]{0,40}"
        r"(?:수 없습니다|수 없어요|수 없네요|드리지 못합니다|드리기 어렵습니다|도와드릴 수|못해요)",
        r"(?:저는 |그 질문에(?:는)? |해당 (?:질문|요청)에 )?(?:답변|대답|도움|도와)(?:을|를)?[^.]{0,6}(?:드릴|줄|할) 수 없",
        r"(?:저는 |나는 |제가 )?(?:단지 )?(?:ai|인공지능|(?:대규모 |대형 )?언어 ?모델|가상 비서)(?: 언어 ?모델| 모델| 어시스턴트| 비서)?"
        r"(?:로서|로써|이므로|이기 때문에|입니다|이라서|이라|일 뿐|라서|기 때문에)",
    ),
    "zh": (
        r"(?:我)?(?:很|非常|十分|真的?|深感)?(?:抱歉|对不起|遗憾|不好意思)[,。.!]?(?:但|但是|可是)?(?:作为[^,。]{0,12}[,])?(?:我们?)(?:目前|暂时)?"
        r"(?:无法|不能|没有办法|没办法|不会|不便|没有能力|没有权限)",
        r"我(?:目前|暂时)?(?:无法|不能|没办法)(?:直接)?(?:回答|提供|帮助[您你]|帮[您你]|协助|满足|完成|处理|给出|为[您你])",
        r"(?:作为|身为|我是|我只是|我仅是)(?:一个|一名|一款|一种)?(?:大型|大)?(?:人工智能|ai|语言模型|智能助手|虚拟助手)",
    ),
    "zh-Hant": (
        r"(?:我)?(?:很|非常|十分|真的?|深感)?(?:抱歉|對不起|遺憾|不好意思)[,。.!]?(?:但|但是|可是)?(?:作為[^,。]{0,12}[,])?(?:我們?)(?:目前|暫時)?"
        r"(?:無法|不能|沒有辦法|沒辦法|不會|不便|沒有能力|沒有權限)",
        r"我(?:目前|暫時)?(?:無法|不能|沒辦法)(?:直接)?(?:回答|提供|幫助[您你]|幫[您你]|協助|滿足|完成|處理|給出|為[您你])",
        r"(?:作為|身為|我是|我只是|我僅是)(?:一個|一名|一款|一種)?(?:大型|大)?(?:人工智慧|人工智能|ai|語言模型|智慧助理|虛擬助理)",
    ),
}
"""Language -> how refusals begin in it, as regular expressions on what `_plain` makes of an answer."""
WHOLE: dict[str, tuple[str, ...]] = {
    "en": (
        r"(?:(?:i'm|i am) )?(?:so |very )?sorry",
        r"(?:sorry, )?i (?:don't|do not) know",
        r"i (?:can't|cannot)(?: answer that)?",
    ),
    "fr": (r"(?:je suis )?désolée?", r"je ne sais pas", r"je ne peux pas(?: répondre)?"),
    "es": (r"lo siento(?: mucho)?", r"no (?:lo )?sé", r"no puedo(?: responder)?"),
    "pt": (r"(?:sinto muito|desculpe|desculpa)", r"(?:eu )?não sei", r"não posso(?: responder)?"),
    "it": (r"(?:mi dispiace|scusa)", r"non lo so", r"non posso(?: rispondere)?"),
    "de": (
        r"(?:es )?tut mir leid",
        r"(?:das )?weiß ich nicht|ich weiß (?:es )?nicht",
        r"(?:das kann ich nicht|ich kann das nicht)(?: beantworten)?",
    ),
    "vi": (r"(?:tôi )?xin lỗi", r"tôi không biết", r"tôi không thể(?: trả lời)?"),
    "id": (r"(?:mohon )?maaf", r"saya tidak tahu", r"saya tidak (?:bisa|dapat)(?: menjawab)?"),
    "ru": (r"(?:извините|простите|мне жаль)", r"(?:я )?не знаю", r"я не могу(?: ответить)?"),
    "ar": (r"(?:عذرا|اسف|انا اسف)", r"لا (?:اعرف|اعلم|ادري)", r"لا (?:استطيع|يمكنني)(?: الاجابة)?"),
    "ja": (
        r"(?:申し訳(?:ありません|ございません)|すみません|ごめんなさい)",
        r"(?:分かり|わかり)ません|知りません",
        r"(?:お答え)?できません",
    ),
    "ko": (r"(?:죄송합니다|미안합니다)", r"(?:잘 )?(?:모르겠습니다|모릅니다|모르겠어요)"),
    "zh": (r"(?:很|非常)?(?:抱歉|对不起)", r"我?不知道", r"我?(?:无法|不能)回答"),
    "zh-Hant": (r"(?:很|非常)?(?:抱歉|對不起)", r"我?不知道", r"我?(?:無法|不能)回答"),
}
"""Language -> what is a refusal where the answer says nothing else."""
_SIGNS = str.maketrans({"’": "'", "‘": "'", "ʼ": "'", "，": ",", "！": "!", "。": "。"})
_ARABIC = str.maketrans({**dict.fromkeys("أإآ", "ا"), **dict.fromkeys(map(chr, range(0x064B, 0x0653)), None), "ى": "ي"})
_BEFORE = re.compile(r"\A[\W_]+")
_AFTER = re.compile(r"[\W_]+$")


def refused(answer: str) -> bool:
    """Whether an answer begins with a refusal, or says nothing else: `BEGINS` and `WHOLE`, in any of 14 languages, whichever was asked for.

    Known phrases alone, so one that is worded otherwise is missed, and one that comes later in the answer does not count.

    Example:
        >>> from lape.measure.answer_refusals import refused
        >>> [refused(one) for one in ("I'm sorry, but I can't help with that.", "I can't recommend it enough!")]
        [True, False]
    """
    text = _plain(answer)
    begins, whole = _patterns()
    return bool(begins.match(text) or whole.fullmatch(_AFTER.sub("", text)))


def _plain(answer: str) -> str:
    """Lower case, composed, with plain apostrophes and single spaces, without marks of Arabic, and without what stands before the first letter."""
    text = unicodedata.normalize("NFKC", answer).casefold().translate(_SIGNS).translate(_ARABIC)
    text = unicodedata.normalize("NFC", text)
    return _BEFORE.sub("", " ".join(text.split()))


@cache
def _patterns() -> tuple[re.Pattern[str], re.Pattern[str]]:
    """All languages' at once, written as `_plain` writes."""
    both = []
    for some in (BEGINS, WHOLE):
        every = [f"(?:{pattern})" for patterns in some.values() for pattern in patterns]
        both.append(re.compile("|".join(every).replace("ß", "ss")))
    return both[0], both[1]
