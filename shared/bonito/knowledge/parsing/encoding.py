"""Bytes into text: byte order mark, what the file declares, strict UTF-8, then a guess that says how sure it is."""

from __future__ import annotations

import codecs
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from charset_normalizer import CharsetMatch

SAMPLE_BYTES = 64 * 1024
UNSURE_BELOW = 0.7

# The longer marks first: UTF-32's little-endian mark begins with UTF-16's.
BYTE_ORDER_MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)

# What a guess may answer, by Python's name, most usual first: of equal candidates the earlier wins, so that three
# accented letters are western European and not Baltic. The names beside are those that are shown.
CANDIDATES = {
    "cp1252": "windows-1252",
    "cp1250": "windows-1250",
    "cp1251": "windows-1251",
    "cp932": "shift_jis",
    "gb18030": "gb18030",
    "big5": "big5",
    "cp949": "euc-kr",
    "euc_jp": "euc-jp",
    "cp1253": "windows-1253",
    "cp1254": "windows-1254",
    "cp1255": "windows-1255",
    "cp1256": "windows-1256",
    "cp1257": "windows-1257",
    "koi8_r": "koi8-r",
    "mac_roman": "macintosh",
}

# Labels that a file may declare, as browsers read them (WHATWG Encoding Standard, "Names and labels"): latin-1 means
# windows-1252 there. A closed list: Python's registry also holds codecs that are no text encodings.
LABELS = {
    **dict.fromkeys(("utf-8", "utf8", "unicode-1-1-utf-8", "utf-16", "utf-16le", "utf-16be"), "utf-8"),
    **dict.fromkeys(("iso-8859-1", "latin1", "l1", "iso8859-1", "iso88591", "us-ascii", "ascii"), "cp1252"),
    **{f"{prefix}{page}": f"cp{page}" for page in range(1250, 1259) for prefix in ("windows-", "cp", "x-cp")},
    **{f"iso-8859-{part}": f"iso8859_{part}" for part in (2, 3, 4, 5, 6, 7, 8, 10, 13, 14, 15, 16)},
    **dict.fromkeys(("iso-8859-9", "latin5"), "cp1254"),
    **dict.fromkeys(("windows-874", "tis-620", "iso-8859-11"), "cp874"),
    **dict.fromkeys(("shift_jis", "shift-jis", "sjis", "x-sjis", "windows-31j", "ms_kanji"), "cp932"),
    **dict.fromkeys(("gb18030", "gbk", "gb2312", "gb_2312-80", "x-gbk", "chinese"), "gb18030"),
    **dict.fromkeys(("euc-kr", "ks_c_5601-1987", "korean", "windows-949"), "cp949"),
    **dict.fromkeys(("big5", "big5-hkscs", "cn-big5", "x-x-big5"), "big5hkscs"),
    **dict.fromkeys(("macintosh", "mac", "x-mac-roman"), "mac_roman"),
    "iso-8859-8-i": "iso8859_8",
    "koi8-r": "koi8_r",
    "koi8-u": "koi8_u",
    "ibm866": "cp866",
    "euc-jp": "euc_jp",
    "iso-2022-jp": "iso2022_jp",
}
MULTI_BYTE = frozenset({"cp932", "gb18030", "big5", "cp949", "euc_jp"})
SHOWN = {"utf-16-le": "utf-16", "utf-16-be": "utf-16", "utf-32-le": "utf-32", "utf-32-be": "utf-32"}
NON_ASCII_LINE = re.compile(rb"[^\n]*[\x80-\xff][^\n]*\n?")
# Signs that no word contains or ends with: what Polish and Czech letters turn into under a western code page.
SIGN_IN_WORD = re.compile(r"(?<=[^\W\d_]{2})(?:[^\w\s!-~’‘´\u00ad·](?=[^\W\d_])|[¹³¼½¾¿¡])")


@dataclass(frozen=True)
class DecodedText:
    """A file's text, its line ends as they were, without the byte order mark.

    Attributes:
        text: may hold NUL characters.
        encoding: the name shown, as in IANA's list.
        confidence: 0 to 1; 1 where nothing was guessed.
        replaced_characters: how many could not be decoded and stand as U+FFFD.
        warnings: sentences for a person, about replaced characters and unsure guesses.
    """

    text: str
    encoding: str
    confidence: float = 1.0
    replaced_characters: int = 0
    warnings: tuple[str, ...] = ()


def decode(data: bytes, *, declared: str | None = None) -> DecodedText:
    """Decode a whole file; never fails, but says what it replaced.

    Args:
        data: the file's bytes.
        declared: the label that the file itself gives (HTML's meta); None or an unknown label counts for nothing.
    """
    for mark, codec in BYTE_ORDER_MARKS:
        if data.startswith(mark):
            return _read(data[len(mark) :], codec)
    wide = wide_codec(data)
    if wide is not None:
        return _read(data, wide)
    label = LABELS.get(declared.strip().lower()) if declared else None
    for trusted in (label, "utf-8"):
        if trusted and _fits(data, trusted):
            return _read(data, trusted)
    if label or _mostly_utf8(data):
        return _read(data, label or "utf-8")
    return _guess(data)


def wide_codec(data: bytes) -> str | None:
    """UTF-16 without a mark, told by its zero bytes: nearly every second one in text of Latin letters."""
    head = data[:4096]
    head = head[: len(head) // 2 * 2]
    if len(data) % 2 or not head:
        return None
    even, odd = head[0::2].count(0), head[1::2].count(0)
    for codec, zeros, others in (("utf-16-le", odd, even), ("utf-16-be", even, odd)):
        if zeros > len(head) // 2 * 0.7 and others == 0 and _fits(data, codec):
            return codec
    return None


def has_byte_order_mark(data: bytes) -> bool:
    """Whether the bytes begin with a mark of UTF-8, UTF-16 or UTF-32."""
    return any(data.startswith(mark) for mark, _ in BYTE_ORDER_MARKS)


def _fits(data: bytes, codec: str) -> bool:
    try:
        data.decode(codec)
    except UnicodeDecodeError:
        return False
    return True


def _read(data: bytes, codec: str, confidence: float = 1.0) -> DecodedText:
    text = data.decode(codec, errors="replace")
    shown = CANDIDATES.get(codec) or SHOWN.get(codec) or codec.replace("_", "-").replace("cp125", "windows-125")
    warnings = []
    if confidence < UNSURE_BELOW:
        warnings.append(f"The text encoding is not declared; {shown} is a guess.")
    replaced = text.count("\ufffd")
    if replaced:  # the file may hold the replacement character itself
        replaced -= data.decode(codec, errors="ignore").count("\ufffd")
    if replaced:
        characters = "1 character is" if replaced == 1 else f"{replaced:,} characters are"
        warnings.append(f"{characters} not valid {shown} and could not be read.")
    return DecodedText(text, shown, confidence, replaced, tuple(warnings))


def _mostly_utf8(data: bytes) -> bool:
    """A damaged UTF-8 file: for each wrong place at least four right characters beyond ASCII."""
    text = data.decode("utf-8", errors="replace")
    wrong = text.count("\ufffd")
    right = len(text) - wrong - len(text.encode("ascii", errors="ignore"))
    return right >= 4 * wrong


def _guess(data: bytes) -> DecodedText:
    from charset_normalizer import from_bytes

    sample = _sample(data)
    matches = list(from_bytes(sample, cp_isolation=list(CANDIDATES), preemptive_behaviour=False))
    if not matches:
        return _read(data, "cp1252", confidence=0.0)
    best = min(matches, key=_doubt)
    # Code pages that read these bytes alike are one candidate; the most usual of them gives the name.
    codec = next(name for name in CANDIDATES if name in {best.encoding, *best.could_be_from_charset})
    confidence = 1 - best.chaos
    if codec not in MULTI_BYTE:  # any bytes are valid there, so that only the language speaks for it
        confidence *= (1 + best.coherence) / 2
    return _read(data, codec, confidence=min(round(confidence, 2), 0.99))


def _doubt(match: CharsetMatch) -> tuple[float, int, float, int]:
    """Least is best: mess, signs inside words, then how much it reads like a language, then how usual it is."""
    signs = len(SIGN_IN_WORD.findall(str(match)))
    return (round(match.chaos, 1), signs, -round(match.coherence, 1), list(CANDIDATES).index(match.encoding))


def _sample(data: bytes) -> bytes:
    """The first lines that are not plain ASCII; they alone tell encodings apart."""
    sample = bytearray()
    for line in NON_ASCII_LINE.finditer(data):
        sample += line.group()
        if len(sample) > SAMPLE_BYTES:
            # Cut between words: half of a two-byte character would rule its encoding out.
            del sample[max(sample.rfind(b" ", 0, SAMPLE_BYTES), SAMPLE_BYTES // 2) :]
            break
    return bytes(sample)
