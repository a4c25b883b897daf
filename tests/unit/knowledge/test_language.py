"""The language of a text: told for prose of every language that Postgres stems, and never told wrongly."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bonito.knowledge.function_words import STEMMED, UNSTEMMED
from bonito.knowledge.language import detect

SAMPLES = {
    "arabic": "يحق لكل موظف الحصول على إجازة سنوية مدفوعة الأجر بعد مرور ستة أشهر من العمل في الشركة،"
    " ويجب أن يتم تقديم الطلب قبل أسبوعين من تاريخ الإجازة إلى المدير المباشر الذي لا يحق له رفضه إلا إذا"
    " كان هناك سبب واضح.",
    "armenian": "Յուրաքանչյուր աշխատող ունի վճարովի արձակուրդի իրավունք, որը պետք է համաձայնեցնել"
    " ղեկավարի հետ։ Եթե այս պայմանը խախտվում է, ապա արձակուրդը կարող է չհաստատվել, բայց նրա իրավունքը"
    " մնում է, և այն չի կորչում։",
    "basque": "Langile guztiek eskubidea dute urtean hogeita bi egun libre izateko, baina eskaera"
    " arduradunari egin behar zaio bi aste lehenago. Hau ez da beharrezkoa gaixo dagoenean, eta ez du"
    " soldatarik galtzen ere.",
    "catalan": "Tots els treballadors tenen dret a vint-i-dos dies de vacances l'any, que s'han de"
    " demanar al cap amb dues setmanes d'antelació. Si no és possible, també es poden fer quan el"
    " projecte ho permeti, però no més tard.",
    "danish": "Alle medarbejdere har ret til fem ugers ferie om året, og ønsket skal meddeles lederen"
    " senest to uger før. Hvis man bliver syg under ferien, kan dagene flyttes, når der er en erklæring"
    " fra lægen, men ikke efter året.",
    "dutch": "Iedere medewerker heeft recht op vijfentwintig vakantiedagen per jaar, die in overleg met"
    " de leidinggevende worden opgenomen. Dagen die niet zijn opgenomen, kunnen tot juli van het volgende"
    " jaar worden gebruikt.",
    "english": "Employees accrue twenty days of paid leave each year, and the request must be sent to"
    " the manager at least two weeks before the first day. Days that have not been taken by the end of"
    " March are lost.",
    "estonian": "Kõik töötajad saavad puhkust kakskümmend kaheksa päeva aastas, kuid sellest peab ette"
    " teatama. Kui see ei ole võimalik, siis lepitakse kokku uus aeg, mis on mõlemale sobiv, ja seda ei"
    " või üle kanda.",
    "finnish": "Työntekijällä on oikeus lomaan, joka on sovittava esimiehen kanssa ennen kuin se alkaa."
    " Jos loma ei ole mahdollinen sovittuna aikana, se voidaan siirtää, mutta sitä ei makseta rahana, kun"
    " työsuhde jatkuu.",
    "french": "Chaque salarié dispose de vingt-cinq jours de congés payés par an, qui doivent être"
    " demandés au responsable au moins deux semaines avant le départ. Les jours qui ne sont pas pris"
    " avant la fin du mois de mai sont perdus.",
    "german": "Alle Beschäftigten haben im Jahr Anspruch auf dreißig Tage Urlaub, der mit der"
    " Führungskraft abgestimmt werden muss. Tage, die bis Ende März des folgenden Jahres nicht genommen"
    " wurden, verfallen.",
    "greek": "Κάθε εργαζόμενος έχει δικαίωμα σε είκοσι ημέρες άδειας το χρόνο, η οποία πρέπει να"
    " ζητηθεί από τον προϊστάμενο δύο εβδομάδες πριν. Αν δεν είναι δυνατόν, η άδεια μεταφέρεται στον"
    " επόμενο μήνα.",
    "hindi": "हर कर्मचारी को साल में बीस दिन की छुट्टी मिलती है और इसके लिए उसे अपने प्रबंधक से दो"
    " सप्ताह पहले अनुमति लेनी होती है। यदि यह संभव नहीं है तो छुट्टी अगले महीने में ली जा सकती है।",
    "hungarian": "Minden dolgozónak évente húsz nap szabadság jár, amelyet a vezetővel kell egyeztetni,"
    " és legalább két héttel az első nap előtt kell kérni. Ha ez nem lehetséges, akkor a napok átvihetők,"
    " de csak márciusig.",
    "indonesian": "Setiap karyawan berhak atas cuti tahunan selama dua belas hari yang harus diajukan"
    " kepada atasan dua minggu sebelum hari pertama. Cuti yang tidak diambil pada tahun ini dapat"
    " dipindahkan ke tahun depan.",
    "irish": "Tá gach fostaí i dteideal fiche lá saoire sa bhliain, agus ní mór é a iarraidh ar an"
    " mbainisteoir coicís roimh ré. Mura bhfuil sé sin indéanta, is féidir na laethanta a thógáil níos"
    " déanaí, ach ní tar éis mhí Mhárta.",
    "italian": "Ogni dipendente ha diritto a ventisei giorni di ferie all'anno, che devono essere"
    " chieste al responsabile almeno due settimane prima. I giorni che non sono stati goduti entro la"
    " fine di giugno si perdono.",
    "lithuanian": "Kiekvienas darbuotojas turi teisę į dvidešimt dienų atostogų per metus, kurios yra"
    " derinamos su vadovu prieš dvi savaites. Jei tai nėra įmanoma, atostogos gali būti perkeltos, bet ne"
    " vėliau kaip iki kovo.",
    "nepali": "प्रत्येक कर्मचारीले वर्षमा बीस दिन बिदा पाउने छन् र यो बिदा लिन दुई हप्ता अगाडि आफ्नो"
    " प्रमुख लाई जानकारी गर्नु पर्छ। यदि यो सम्भव छैन भने बिदा अर्को महिना मा पनि लिन सकिने हुन्छ।",
    "norwegian": "Alle ansatte har rett til fem uker ferie i året, og ønsket må meldes til lederen"
    " senest to uker før. Hvis man blir syk under ferien, kan dagene flyttes når det er en erklæring fra"
    " legen, men ikke etter året.",
    "portuguese": "Todos os funcionários têm direito a trinta dias de férias por ano, que devem ser"
    " pedidas ao gestor com duas semanas de antecedência. Se não for possível, as férias podem ser"
    " gozadas até o fim do mês seguinte.",
    "romanian": "Fiecare angajat are dreptul la douăzeci de zile de concediu pe an, care trebuie cerute"
    " cu două săptămâni înainte. Dacă acest lucru nu este posibil, zilele se pot lua și în anul următor,"
    " dar nu după martie.",
    "russian": "Каждый сотрудник имеет право на двадцать восемь дней отпуска в год, который должен быть"
    " согласован с руководителем не позже чем за две недели. Если это невозможно, отпуск может быть"
    " перенесён, но только на год.",
    "serbian": "Сваки запослени има право на двадесет дана одмора у току године, који мора да се"
    " пријави руководиоцу две недеље пре почетка. Ако то није могуће, дани се могу пренети, али само до"
    " јуна.",
    "spanish": "Todos los empleados tienen derecho a veintitrés días de vacaciones al año, que se deben"
    " pedir al responsable con dos semanas de antelación. Los días que no se hayan disfrutado antes de"
    " marzo se pierden.",
    "swedish": "Alla anställda har rätt till fem veckors semester om året, och den ska anmälas till"
    " chefen senast två veckor före. Om man blir sjuk under semestern kan dagarna flyttas, när det finns"
    " ett intyg, men inte efter året.",
    "tamil": "ஒவ்வொரு ஊழியருக்கும் ஆண்டுக்கு இருபது நாட்கள் விடுப்பு உள்ளது, மேலும் இது இரண்டு"
    " வாரங்களுக்கு முன் மேலாளரிடம் கேட்க வேண்டும். இந்த விடுப்பு மற்றும் பிற விடுப்பு ஒரு ஆண்டு வரை"
    " மட்டும் செல்லும், அது பணமாக இல்லை.",
    "turkish": "Her çalışan yılda yirmi gün izin hakkına sahiptir ve bu izin için en az iki hafta önce"
    " yöneticiden onay alması gerekir. Bu mümkün değil ise izin daha sonra da kullanılabilir, ancak bir"
    " yıl kadar.",
    "yiddish": "יעדער אַרבעטער האָט רעכט אויף צוואַנציק טעג וואַקאַציע אין יאָר, און ער דאַרף דאָס בעטן"
    " פֿון דעם פֿאַרוואַלטער צוויי וואָכן פֿריער. אויב דאָס איז ניט מעגלעך, קען מען די טעג נעמען אויך אין"
    " דעם צווייטן יאָר.",
}

# Languages that Postgres does not stem; nothing is better than a stemmer of another language.
OTHERS = {
    "afrikaans": "Elke werknemer is geregtig op twintig dae verlof per jaar, wat met die bestuurder"
    " gereël moet word. Dae wat nie teen die einde van Maart geneem is nie, kan nie oorgedra word nie.",
    "bulgarian": "Всеки служител има право на двадесет дни отпуск в годината, който трябва да се поиска"
    " от ръководителя две седмици преди началото. Ако това не е възможно, дните може да се прехвърлят, но"
    " само до края на март.",
    "chinese": "每位员工每年享有二十天带薪年假,须提前两周向主管提出申请。未休完的假期可以结转到下一年度,但不得"
    "晚于三月底。",
    "croatian": "Svaki zaposlenik ima pravo na dvadeset dana odmora tijekom godine, koji mora prijaviti"
    " dva tjedna prije početka. Ako to nije moguće, dani se mogu prenijeti, ali samo do lipnja.",
    "czech": "Každý zaměstnanec má nárok na dvacet pět dní dovolené za rok, o kterou musí požádat dva"
    " týdny předem. Pokud to není možné, může být dovolená převedena, ale jen do konce března.",
    "hebrew": "כל עובד זכאי לעשרים ימי חופשה בשנה, ועליו לבקש אותם מן המנהל שבועיים לפני תחילת החופשה."
    " אם זה לא אפשרי, אפשר לקחת את הימים גם אחרי סוף השנה, אבל רק עד חודש מרץ.",
    "icelandic": "Allir starfsmenn eiga rétt á fríi sem er tuttugu og fjórir dagar á ári, og það skal"
    " tilkynnt tveimur vikum áður. Ef það er ekki hægt má færa dagana til, en ekki eftir mars.",
    "japanese": "すべての従業員は年間二十日の有給休暇を取得する権利があり、二週間前までに上司に申請しなければなり"
    "ません。",
    "korean": "모든 직원은 연간 20일의 유급 휴가를 받을 권리가 있으며, 2주 전에 관리자에게 신청해야 합니다.",
    "latvian": "Katram darbiniekam ir tiesības uz divdesmit dienu atvaļinājumu gadā, kas jāsaskaņo ar"
    " vadītāju divas nedēļas pirms. Ja tas nav iespējams, dienas var pārcelt, bet ne vēlāk kā līdz"
    " martam.",
    "marathi": "प्रत्येक कर्मचाऱ्याला वर्षात वीस दिवसांची रजा मिळते आणि त्यासाठी त्याने दोन आठवडे आधी"
    " अर्ज केला पाहिजे. हे शक्य नाही तर ती रजा पुढील वर्षी घेतली जाऊ शकते, म्हणून ते आहे.",
    "persian": "هر کارمند در سال بیست روز مرخصی دارد که باید دو هفته پیش از آن را به مدیر خود اطلاع"
    " دهد. اگر این کار ممکن نباشد، مرخصی تا پایان سال بعد نیز برای او باقی می ماند و از بین نمی رود.",
    "polish": "Każdy pracownik ma prawo do dwudziestu sześciu dni urlopu w roku, który należy uzgodnić"
    " z przełożonym na dwa tygodnie przed. Jeśli to nie jest możliwe, dni przechodzą na następny rok, ale"
    " tylko do marca.",
    "slovenian": "Vsak zaposleni ima pravico do dvajset dni dopusta na leto, ki ga mora prijaviti dva"
    " tedna pred začetkom. Če to ni mogoče, se dnevi lahko prenesejo, vendar samo do konca marca.",
    "thai": "พนักงานทุกคนมีสิทธิลาพักร้อนปีละยี่สิบวัน โดยต้องแจ้งหัวหน้างานล่วงหน้าสองสัปดาห์",
    "ukrainian": "Кожен працівник має право на двадцять чотири дні відпустки на рік, яка має бути"
    " узгоджена з керівником за два тижні до початку. Якщо це неможливо, відпустка може бути перенесена,"
    " але тільки до березня.",
    "urdu": "ہر ملازم کو سال میں بیس دن کی چھٹی ملتی ہے اور اس کے لیے دو ہفتے پہلے منیجر سے اجازت لینا"
    " ضروری ہے۔ اگر یہ ممکن نہ ہو تو یہ چھٹی اگلے سال تک لی جا سکتی ہے۔",
    "vietnamese": "Mỗi nhân viên được nghỉ phép hai mươi ngày trong một năm và phải báo cho quản lý"
    " trước hai tuần. Nếu không thể, các ngày này sẽ được chuyển sang năm sau, nhưng không muộn hơn tháng"
    " ba.",
}

UNTOLD = {
    "empty": "",
    "digits": "12 345 67,8 90 " * 50,
    "too short": "Vacation policy",
    "a table": "sku,name,price\n" + "\n".join(f"A-{n},Widget {n},{n * 3}" for n in range(200)),
    "names": "Anna Schmidt, Pierre Dupont, Maria de la Cruz, John Smith, Lars Larsen, Giulia di Rossi " * 5,
    "code": "def add(a, b):\n    return a + b\n\nclass Adder:\n    def __init__(self):\n        self.total = 0\n" * 5,
    "nothing but marks": "\u0301\u0900" * 30,
}


@pytest.mark.parametrize(("language", "text"), SAMPLES.items(), ids=SAMPLES)
def test_prose_is_recognized(language: str, text: str) -> None:
    assert detect(text) == language


@pytest.mark.parametrize(("language", "text"), SAMPLES.items(), ids=SAMPLES)
def test_a_part_of_it_is_recognized_or_not_told_but_never_taken_for_another(language: str, text: str) -> None:
    words = text.split()
    for start in range(0, len(words), 5):
        assert detect(" ".join(words[start : start + 12])) in (language, None)


@pytest.mark.parametrize("text", OTHERS.values(), ids=OTHERS)
def test_what_postgres_does_not_stem_is_not_told(text: str) -> None:
    assert detect(text) is None


@pytest.mark.parametrize("text", UNTOLD.values(), ids=UNTOLD)
def test_what_is_no_prose_is_not_told(text: str) -> None:
    assert detect(text) is None


def test_every_language_with_words_has_a_sample() -> None:
    assert set(SAMPLES) == set(STEMMED)
    assert not set(STEMMED) & set(UNSTEMMED)


def test_headings_tables_and_numbers_around_prose_do_not_hide_it() -> None:
    noise = "| Q1 | 2026 | 17.5 % |\n" * 10
    assert detect(f"# 4.2\n\n{noise}\n{SAMPLES['german']}\n{noise}") == "german"


@given(st.text())
def test_any_text_has_an_answer(text: str) -> None:
    assert detect(text) in {*STEMMED, None}
