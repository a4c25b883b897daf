from __future__ import annotations

import codecs

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bonito.knowledge.parsing.encoding import LABELS, decode
from tests.unit.knowledge.parsing.properties import patient

GERMAN = "Die Mitarbeiter erhalten dreißig Tage Urlaub im Jahr. Überstunden müssen genehmigt werden. "
FRENCH = "Le café crème coûte très cher à Noël, et l’été aussi : 3 € la tasse. "
RUSSIAN = "Сотрудники получают тридцать дней отпуска в год. Сверхурочные должны быть одобрены. "
POLISH = "Pracownicy otrzymują trzydzieści dni urlopu rocznie. Nadgodziny muszą zostać zatwierdzone. "
TURKISH = "Çalışanlar yılda otuz gün izin alır. Fazla mesai onaylanmalıdır. "
GREEK = "Οι εργαζόμενοι δικαιούνται τριάντα ημέρες άδεια τον χρόνο. "
JAPANESE = "従業員は年間30日の休暇を取得できます。残業は承認が必要です。"
CHINESE = "员工每年享有三十天假期。加班必须得到批准。"
KOREAN = "직원은 연간 30일의 휴가를 받습니다. 초과 근무는 승인을 받아야 합니다. "


@pytest.mark.parametrize(
    ("codec", "text", "shown"),
    [
        ("cp1252", GERMAN, "windows-1252"),
        ("cp1252", FRENCH, "windows-1252"),
        ("cp1251", RUSSIAN, "windows-1251"),
        ("koi8_r", RUSSIAN, "koi8-r"),
        ("cp1250", POLISH, "windows-1250"),
        ("cp1254", TURKISH, "windows-1254"),
        ("cp1253", GREEK, "windows-1253"),
        ("cp932", JAPANESE, "shift_jis"),
        ("euc_jp", JAPANESE, "euc-jp"),
        ("gb18030", CHINESE, "gb18030"),
        ("cp949", KOREAN, "euc-kr"),
    ],
)
@pytest.mark.parametrize("repeated", [1, 3000], ids=["short", "long"])
def test_an_encoding_that_is_not_declared_is_guessed(codec: str, text: str, shown: str, repeated: int) -> None:
    decoded = decode((text * repeated).encode(codec))

    assert decoded.text == text * repeated
    assert decoded.encoding == shown
    assert 0 < decoded.confidence < 1
    assert decoded.replaced_characters == 0


@pytest.mark.parametrize(
    ("mark", "codec", "shown"),
    [
        (codecs.BOM_UTF8, "utf-8", "utf-8"),
        (codecs.BOM_UTF16_LE, "utf-16-le", "utf-16"),
        (codecs.BOM_UTF16_BE, "utf-16-be", "utf-16"),
        (codecs.BOM_UTF32_LE, "utf-32-le", "utf-32"),
        (codecs.BOM_UTF32_BE, "utf-32-be", "utf-32"),
    ],
)
def test_a_byte_order_mark_decides_and_is_no_text(mark: bytes, codec: str, shown: str) -> None:
    decoded = decode(mark + "grüße 😀".encode(codec))

    assert (decoded.text, decoded.encoding, decoded.confidence) == ("grüße 😀", shown, 1.0)


@pytest.mark.parametrize("codec", ["utf-16-le", "utf-16-be"])
def test_utf16_without_a_mark_is_told_by_its_zero_bytes(codec: str) -> None:
    assert decode(GERMAN.encode(codec)).text == GERMAN


def test_a_few_wrong_bytes_in_utf8_are_replaced_and_counted() -> None:
    decoded = decode((GERMAN * 5).encode() + b"\xff\xfe!" + GERMAN.encode())

    assert decoded.encoding == "utf-8"
    assert decoded.replaced_characters == 2
    assert decoded.text.count("ß") == 6
    assert decoded.warnings == ("2 characters are not valid utf-8 and could not be read.",)


def test_a_replacement_character_of_the_author_is_not_counted() -> None:
    assert decode("it was \ufffd already".encode()).replaced_characters == 0
    assert decode(codecs.BOM_UTF16_LE + "a\ufffdb".encode("utf-16-le") + b"\x00").replaced_characters == 1


def test_a_guess_from_three_letters_is_western_and_says_that_it_is_unsure() -> None:
    decoded = decode("résumé".encode("latin-1"))

    assert decoded.text == "résumé"
    assert decoded.warnings == ("The text encoding is not declared; windows-1252 is a guess.",)


def test_a_late_legacy_byte_is_found_behind_much_ascii() -> None:
    assert decode(b"plain ascii line\n" * 20_000 + "Überstunden für alle".encode("cp1252")).text.endswith("für alle")


def test_what_the_file_declares_comes_before_a_guess() -> None:
    assert decode("łódź".encode("cp1250"), declared="Windows-1250").text == "łódź"
    assert decode("naïve".encode("cp1252"), declared="iso-8859-1").encoding == "windows-1252"


def test_a_wrong_declaration_yields_to_valid_utf8() -> None:
    assert decode("Ívar".encode(), declared="iso-8859-1").text == "Ívar"


def test_a_declaration_that_is_no_text_encoding_counts_for_nothing() -> None:
    assert decode(b"cnfg", declared="rot13").text == "cnfg"
    assert decode(b"a\\u0041", declared="unicode_escape").text == "a\\u0041"


@pytest.mark.parametrize("codec", sorted(set(LABELS.values())))
def test_every_label_leads_to_a_codec(codec: str) -> None:
    assert codecs.lookup(codec).decode(b"abc")[0] == "abc"


@patient
@given(st.binary(max_size=300), st.none() | st.sampled_from(sorted(LABELS)))
def test_decoding_never_fails_and_counts_what_it_replaces(data: bytes, declared: str | None) -> None:
    decoded = decode(data, declared=declared)

    assert 0 <= decoded.confidence <= 1
    assert 0 <= decoded.replaced_characters <= decoded.text.count("\ufffd")


@patient
@given(st.text(max_size=100))
def test_utf8_is_read_as_it_was_written(text: str) -> None:
    data = text.encode()
    decoded = decode(data)

    if not data.startswith((codecs.BOM_UTF8,)) and b"\0" not in data:
        assert (decoded.text, decoded.encoding) == (text, "utf-8")
