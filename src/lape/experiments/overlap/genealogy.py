"""Which family and branches a language belongs to: a small table of our own, from general knowledge.

It is meant for asking whether related languages share neurons, not as a statement about disputed branches. Creoles and constructed
languages are left out: they have no agreed place in one tree.
"""

from __future__ import annotations

from itertools import takewhile

import langcodes

from lape.data.languages import tag

_BRANCHES = {
    "Afro-Asiatic/Berber": "kab rif shi taq tzm zgh",
    "Afro-Asiatic/Chadic": "ha",
    "Afro-Asiatic/Cushitic": "om so",
    "Afro-Asiatic/Semitic/Central/Arabic": "acm acq aeb ajp apc apd ar ars ary arz mt",
    "Afro-Asiatic/Semitic/Central/Northwest": "he",
    "Afro-Asiatic/Semitic/Ethiopic": "am ti",
    "Austroasiatic/Khmeric": "km",
    "Austroasiatic/Munda": "sat",
    "Austroasiatic/Vietic": "vi",
    "Austronesian/Malayo-Polynesian/Balinese": "ban",
    "Austronesian/Malayo-Polynesian/Barito": "mg",
    "Austronesian/Malayo-Polynesian/Chamic": "ace",
    "Austronesian/Malayo-Polynesian/Javanese": "jv",
    "Austronesian/Malayo-Polynesian/Malayic": "bjn id min ms",
    "Austronesian/Malayo-Polynesian/Oceanic/Fijian": "fj",
    "Austronesian/Malayo-Polynesian/Oceanic/Polynesian": "haw mi sm to ty",
    "Austronesian/Malayo-Polynesian/Philippine/Central": "ceb fil war",
    "Austronesian/Malayo-Polynesian/Philippine/Northern": "ilo pag pam",
    "Austronesian/Malayo-Polynesian/Sundanese": "su",
    "Aymaran": "ay",
    "Basque": "eu",
    "Dravidian/South-Central": "te",
    "Dravidian/South/Kannada": "kn",
    "Dravidian/South/Tamil": "ml ta",
    "Eskimo-Aleut/Inuit": "iu kl",
    "Hmong-Mien/Hmongic": "hmn mww",
    "Indo-European/Albanian": "als sq",
    "Indo-European/Armenian": "hy",
    "Indo-European/Balto-Slavic/Baltic": "lt ltg lv",
    "Indo-European/Balto-Slavic/Slavic/East": "be ru uk",
    "Indo-European/Balto-Slavic/Slavic/South/East": "bg mk",
    "Indo-European/Balto-Slavic/Slavic/South/West": "bs hr sl sr",
    "Indo-European/Balto-Slavic/Slavic/West/Czech-Slovak": "cs sk",
    "Indo-European/Balto-Slavic/Slavic/West/Lechitic": "pl szl",
    "Indo-European/Celtic/Brythonic": "br cy",
    "Indo-European/Celtic/Goidelic": "ga gd gv",
    "Indo-European/Germanic/North/Continental": "da nb nn no sv",
    "Indo-European/Germanic/North/Insular": "fo is",
    "Indo-European/Germanic/West/Anglo-Frisian": "en fy sco",
    "Indo-European/Germanic/West/High German": "de gsw lb yi",
    "Indo-European/Germanic/West/Low Franconian": "af li nl",
    "Indo-European/Hellenic": "el",
    "Indo-European/Indo-Iranian/Indo-Aryan/Central": "awa hi hne ur",
    "Indo-European/Indo-Iranian/Indo-Aryan/Dardic": "ks",
    "Indo-European/Indo-Iranian/Indo-Aryan/Eastern/Bengali-Assamese": "as bn",
    "Indo-European/Indo-Iranian/Indo-Aryan/Eastern/Bihari": "bho mag mai",
    "Indo-European/Indo-Iranian/Indo-Aryan/Eastern/Odia": "or",
    "Indo-European/Indo-Iranian/Indo-Aryan/Insular": "dv si",
    "Indo-European/Indo-Iranian/Indo-Aryan/Northern": "ne",
    "Indo-European/Indo-Iranian/Indo-Aryan/Northwestern": "pa sd",
    "Indo-European/Indo-Iranian/Indo-Aryan/Sanskrit": "sa",
    "Indo-European/Indo-Iranian/Indo-Aryan/Southern": "kok mr",
    "Indo-European/Indo-Iranian/Indo-Aryan/Western": "gu",
    "Indo-European/Indo-Iranian/Iranian/Eastern": "os ps",
    "Indo-European/Indo-Iranian/Iranian/Western/Kurdish": "ckb kmr ku",
    "Indo-European/Indo-Iranian/Iranian/Western/Persian": "fa tg",
    "Indo-European/Italic/Latin": "la",
    "Indo-European/Italic/Romance/Eastern": "ro",
    "Indo-European/Italic/Romance/Italo-Dalmatian": "it scn",
    "Indo-European/Italic/Romance/Sardinian": "sc",
    "Indo-European/Italic/Romance/Western/Gallo": "fr wa",
    "Indo-European/Italic/Romance/Western/Gallo-Italic": "lij lmo",
    "Indo-European/Italic/Romance/Western/Ibero": "ast es gl pt",
    "Indo-European/Italic/Romance/Western/Occitano": "ca oc",
    "Japonic": "ja",
    "Kartvelian": "ka",
    "Koreanic": "ko",
    "Kra-Dai/Tai/Southwestern": "lo shn th",
    "Mande/Manding": "bm dyu",
    "Mongolic": "mn",
    "Niger-Congo/Atlantic-Congo/North Atlantic": "ff wo",
    "Niger-Congo/Atlantic-Congo/Volta-Congo/Bantu/Eastern": "bem ki ny sn sw tum",
    "Niger-Congo/Atlantic-Congo/Volta-Congo/Bantu/Great Lakes": "lg rn rw",
    "Niger-Congo/Atlantic-Congo/Volta-Congo/Bantu/Southern/Nguni": "nr ss xh zu",
    "Niger-Congo/Atlantic-Congo/Volta-Congo/Bantu/Southern/Sotho-Tswana": "nso st tn",
    "Niger-Congo/Atlantic-Congo/Volta-Congo/Bantu/Southern/Tsonga": "ts",
    "Niger-Congo/Atlantic-Congo/Volta-Congo/Bantu/Western": "kg ln lua umb",
    "Niger-Congo/Atlantic-Congo/Volta-Congo/Gbe": "ee fon",
    "Niger-Congo/Atlantic-Congo/Volta-Congo/Igboid": "ig",
    "Niger-Congo/Atlantic-Congo/Volta-Congo/Kwa": "ak tw",
    "Niger-Congo/Atlantic-Congo/Volta-Congo/Yoruboid": "yo",
    "Nilotic/Western": "din luo nus",
    "Quechuan": "qu",
    "Sino-Tibetan/Lolo-Burmese": "my",
    "Sino-Tibetan/Sinitic/Hakka": "hak",
    "Sino-Tibetan/Sinitic/Mandarin": "zh",
    "Sino-Tibetan/Sinitic/Min": "nan",
    "Sino-Tibetan/Sinitic/Wu": "wuu",
    "Sino-Tibetan/Sinitic/Yue": "yue",
    "Sino-Tibetan/Tibetic": "bo dz",
    "Tupian/Guarani": "gn",
    "Turkic/Karluk": "ug uz",
    "Turkic/Kipchak": "ba crh kk ky tt",
    "Turkic/Oghur": "cv",
    "Turkic/Oghuz": "az tk tr",
    "Turkic/Siberian": "sah",
    "Uralic/Finnic": "et fi",
    "Uralic/Sami": "se",
    "Uralic/Ugric": "hu",
}
_PATHS = {code: tuple(branch.split("/")) for branch, codes in _BRANCHES.items() for code in codes.split()}


def path(language: str) -> tuple[str, ...] | None:
    """The way from the family down to the language itself, or None for one that is not in the table.

    `fr`: ("Indo-European", "Italic", "Romance", "Western", "Gallo", "fr"). Script, region and private use do not matter; a member
    of a macrolanguage that has no place of its own (`arb`, `zsm`) gets that of the macrolanguage. Raises TextError for no tag.
    """
    code = langcodes.Language.get(tag(language)).language
    if code not in _PATHS:
        wider = langcodes.standardize_tag(code or "und", macro=True)
        code = langcodes.Language.get(wider).language
    return (*_PATHS[code], code) if code in _PATHS else None


def kinship(a: str, b: str) -> float | None:
    """The share of two languages' paths that they have in common, 0 (different families) to 1 (the same language).

    2 · shared steps / (steps of `a` + steps of `b`), the form of Wu and Palmer (1994). None where one is not in the table.
    """
    first, second = path(a), path(b)
    if first is None or second is None:
        return None
    shared = len(list(takewhile(lambda step: step[0] == step[1], zip(first, second, strict=False))))
    return 2 * shared / (len(first) + len(second))
