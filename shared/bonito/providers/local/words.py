"""Words of a text: what of them is compared, and how many tokens they count as."""

from __future__ import annotations

import re
import unicodedata

WORD = re.compile(r"[^\W_]+")
# Scripts without spaces between words: Thai to Khmer, kana, Han, and their compatibility forms.
UNSPACED = re.compile(
    r"[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]+"
)
PIECE = re.compile(r"\s*(?:\w+|[^\w\s])")
ASCII_WORD_BYTES, OTHER_WORD_BYTES = 8, 4  # of a token, at most

# Words that ask or join and say nothing of the matter, in the languages met most; of others, frequency decides.
_FUNCTION_WORDS = """
a about after all am an and any are as at be been before by can could did do does each for from get give had has
have how i if in into is it its just me may must my need not of on or our over per please shall should so some
such tell than that the their them then there these they this those to under up us was we were what when where
which who whom whose why will with within would you your aber als auch auf aus bei bin bis das dass dem den der
des die dies ein eine einem einen einer es für gibt hat haben ich ihr im ist kann man mein mich mir mit muss
nach nicht noch oder sein sich sie sind um und uns vom von wann war warum welche welcher welches wenn wer wie
wird wo zu zum zur au aux avec ce cette combien comment dans de du elle en est et il ils je la le les leur ma
mes mon ne nous ou par pas pour quand que quel quelle quels qui sa se ses son sont sur un une vous al como con
cual cuando cuanto del donde el ella esta este hay las lo los mi no o para por si su sus una y
"""


def folded(text: str) -> str:
    """Without case and accents, in the compatibility form; the marks of scripts like Thai stay."""
    text = unicodedata.normalize("NFKD", text.casefold())
    text = "".join(char for char in text if not unicodedata.combining(char) or UNSPACED.match(char))
    return unicodedata.normalize("NFKC", text)


FUNCTION_WORDS = frozenset(folded(_FUNCTION_WORDS).split())


def terms(text: str) -> list[str]:
    """Folded words without their endings; scripts without spaces as pairs of characters."""
    found: list[str] = []
    for word in WORD.findall(folded(text)):
        if UNSPACED.match(word):
            found += [word] if len(word) == 1 else [word[at : at + 2] for at in range(len(word) - 1)]
        elif len(word) > 1 or word.isdigit():
            found.append(_stem(word))
    return found


def _stem(word: str) -> str:
    """Take off the endings of plurals and of English verbs; what they leave is compared, never shown."""
    if len(word) < 4 or not word.isalpha() or word in FUNCTION_WORDS:
        return word
    if word.endswith("ies") and len(word) > 4:
        return word[:-3] + "y"
    for ending, least in (("ing", 7), ("ed", 6), ("s", 4)):
        if word.endswith(ending) and len(word) >= least and not word.endswith(("ss", "us", "is", "eed")):
            word = word[: -len(ending)]
            break
    return word.removesuffix("e") if len(word) > 4 else word


def token_pieces(text: str) -> list[tuple[str, int]]:
    """The text in pieces, words and marks with the space before them, each with the tokens that it counts as.

    No model's vocabulary is behind it: a mark counts one, a word one per started eight bytes, or four outside ASCII.
    Space at the end of the text is left out.
    """
    found: list[tuple[str, int]] = []
    for piece in PIECE.findall(text):
        word = piece.strip()
        size = len(word.encode(errors="replace"))
        found.append((piece, -(-size // (ASCII_WORD_BYTES if word.isascii() else OTHER_WORD_BYTES))))
    return found


def count_tokens(text: str) -> int:
    """Approximate tokens of a text, counted as `token_pieces` does."""
    return sum(tokens for _, tokens in token_pieces(text))
