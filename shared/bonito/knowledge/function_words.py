"""The commonest function words of the languages that Postgres stems, and of their neighbours that it does not.

Words are lower-case and as written, without apostrophes. Only frequent ones: articles, prepositions, conjunctions,
pronouns and forms of `to be`. Neighbours keep a text of theirs from being taken for a language that shares words or
the script with it.
"""

from __future__ import annotations

STEMMED: dict[str, str] = {
    "arabic": "في من على إلى عن أن إن التي الذي هذا هذه ذلك كان كانت كل ما لا لم مع بعد قبل بين أو ثم"
    " قد هو هي كما عند حتى غير يتم يكون يجب خلال و",
    "armenian": "և է են որ այս այդ համար մեջ հետ նաև կամ եթե իր նրա բոլոր մասին պետք է որպես ըստ ու չի"
    " չեն կա էր մի բայց",
    "basque": "eta da ez bat dira du ere dute izan zen baina hau hori egin duen den baino behar edo oso"
    " bere dela ditu gehiago artean arte guztiak baita zuen zituen",
    "catalan": "el la els les de del dels i a en que per un una amb no es és són al als pel pels com"
    " més aquest aquesta aquests aquestes ha han o si també seva seu seus seves tots totes cada quan"
    " perquè fins sense on ser ho hi",
    "danish": "og i at er en den til på det de med af for ikke der som et har fra var han vi jeg kan"
    " ved om sig men så være efter bliver blev skal over hvis også mellem hvor hvad nogle meget når eller"
    " mod alle denne dette under deres vores uden ikke kun nu ud op",
    "dutch": "de het een en van in is dat op te zijn voor met die niet aan er om ook als bij dan naar"
    " worden wordt of uit door maar over heeft hebben deze dit nog kan kunnen werd tot wel geen meer alle"
    " zij hij je u wij ons onze moet moeten hun tussen binnen per",
    "english": "the of and to in is that for it as was with on be by are this which or from at an not"
    " have has had but they their will would can may must should if when who what all any been were its"
    " more other than then there these those we you your our after before about into only no do does his"
    " her he she each",
    "estonian": "ja on ei see et kui ka ning mis oma või selle ta kes ole aga seda oli mida siis nende"
    " pärast enne kuni olla peab võib kõik iga üle neid meie teie kas välja",
    "finnish": "ja on ei että se oli tai kun myös joka jos ovat sen hän mutta kuin niin tämä ole voi"
    " mukaan jonka sekä ollut olla sitä siitä ennen jälkeen kanssa tämän niiden ne tulee vain jotka"
    " kaikki hänen mitä ovat eivät",
    "french": "de la le les et des en un une du est pour que qui dans par sur pas au plus ne se ce il"
    " elle sont avec aux ou son sa ses cette ces être été nous vous ils leur leurs mais comme si tout"
    " tous toute toutes doit peut entre après avant sans chaque votre notre nos vos ont lors je",
    "german": "der die und in den von zu das mit sich des auf für ist im dem nicht ein eine als auch es"
    " an werden aus er hat dass sie nach wird bei einer um am sind noch wie einem über einen so zum war"
    " haben nur oder aber vor zur bis mehr durch man kann wenn wir ihr ihre sein unter muss alle jede"
    " jeder",
    "greek": "και το η ο του της να τα οι με για στο που την σε από είναι των τον τη στη στην δεν θα"
    " ένα μια ή ότι αν πρέπει όπως έχει έχουν μετά πριν κατά προς τις τους αυτό αυτή κάθε όλα μας σας",
    "hindi": "के का की में है और से को पर यह कि एक हैं नहीं ने भी लिए इस कर या तो था हो गया जो होता"
    " होती करने किया सकते सकता थी थे अपने जा रहा बाद साथ तक",
    "hungarian": "a az és hogy nem is egy van meg csak ha ez azt de vagy mint még el már volt minden"
    " lehet kell amely után előtt között nincs ki le fel be ezt vannak sem ennek azok akkor amikor ami"
    " aki alapján esetén illetve valamint által",
    "indonesian": "yang dan di untuk dengan dari ini itu pada tidak adalah ke dalam akan oleh sebagai"
    " juga atau dapat telah bisa karena mereka kami kita anda setiap harus lebih sudah ada saat secara"
    " tersebut serta hanya setelah sebelum bagi para jika",
    "irish": "agus an na is ar go i le a do de sé tá ní bhí ag seo sin nó mar leis gur nach chun ach"
    " faoi ó má bheith idir iad siad aon gach ina air atá raibh dá roimh tar éis",
    "italian": "di e che la il un a per in una sono non è con del della dei delle le si da al alla nel"
    " nella i lo gli ma come più anche o se ha hanno questo questa questi essere stato dal dalla sul"
    " sulla ogni tutti tutte deve può dopo prima tra ai degli loro suo sua quando cui ed è",
    "lithuanian": "ir yra kad į iš su ne tai bet kaip buvo apie jo jos ar nuo po per dėl tik už arba"
    " prie kai gali savo turi būti jau taip šis ši visi iki prieš jei kurie kuris tarp",
    "nepali": "र छ को मा लाई हो यो पनि भएको गर्न गरेको छन् भने तथा लागि बाट थियो हुन्छ तर एक गर्ने"
    " नेपाल सो ले हुन हुने गर्नु पर्छ अनुसार का",
    "norwegian": "og i det er på som en å for at til med av den ikke de har et om fra var han vi jeg"
    " kan ved seg men så være etter blir ble skal over hvis også mellom hvor hva noen mye når eller mot"
    " alle denne dette under deres våre uten bare nå ut opp må",
    "portuguese": "de a o que e do da em um para é com não uma os no se na por mais as dos como mas foi"
    " ao ele das tem à seu sua ou ser quando muito há nos já está eu também só pelo pela até isso ela"
    " entre era depois sem mesmo aos são pode deve cada todos todas após antes você",
    "romanian": "și de în la a cu pe nu să din care un o este sunt pentru că mai sau ca al ale fi fost"
    " după prin dacă între când toate trebuie poate acest această au are lui lor cel cei se ce dar fără"
    " până fiecare înainte",
    "russian": "и в не на что с по как это он она они к из у за от его но а для о так же бы или если до"
    " при все который которые которых быть был была были может также после перед только мы вы их ее нет"
    " должен между каждый этот",
    "serbian": "и у је да на се за су од са не које који као али то или по из што би са до када само"
    " може бити након пре сваки све она они i u je da na se za su od sa ne koje koji kao ali to ili po iz"
    " što bi do kada samo može biti nakon pre svaki sve",
    "spanish": "de la que el en y a los se del las un por con no una su para es al lo como más o pero"
    " sus le ha me si sin sobre este ya entre cuando todo esta ser son dos también fue había era muy años"
    " hasta desde está nos durante uno ni ese eso todos cada debe puede después antes usted",
    "swedish": "och i att det som en på är av för med till den har de inte om ett han men var jag så vi"
    " från kan när nu eller efter vid ska under mellan hur där också sin sig blir blev måste alla varje"
    " ut upp över vara varit mot denna detta dessa utan deras våra vad några",
    "tamil": "மற்றும் ஒரு இந்த என்று அது என்ற உள்ள இல்லை பல இது அந்த தான் மேலும் வேண்டும் முன் பின்"
    " அல்லது போது வரை மட்டும் அவர் எந்த அனைத்து ஆகும் இருந்து கொண்டு பற்றி",
    "turkish": "ve bir bu da de için ile olarak olan çok daha gibi en ne var o ama kadar sonra değil"
    " ise her göre önce veya tarafından olduğu ya ki şey tüm bütün mi hem eğer gerekir olur ancak",
    "yiddish": "און די דער אין איז פֿון פון אַז צו דאָס אַ מיט ניט נישט ער עס האָט אויף וואָס זיי מען"
    " זיך צום אויך פאַר זענען געווען ווי נאָך דעם",
}

UNSTEMMED: dict[str, str] = {
    "afrikaans": "die en van in is het wat 'n dit nie vir met om te op aan sy hulle ons deur ook as kan"
    " sal was moet word of maar hierdie na nie",
    "bulgarian": "и на да в се от за не с че са по е като със до които но или към може при след преди"
    " който която което бъде има този тази това трябва само всички между ще",
    "croatian": "i u je da na se za su od s koji koje koja kao ali ili iz što bi do kada samo može biti"
    " nakon prije svaki sve nije te tijekom ako također uz",
    "czech": "a v se na je že s z o do i k ve pro za by ale po jako které který která nebo být jsou"
    " bylo také jen až mezi při musí může pokud když byl každý všechny před není podle",
    "galician": "de a o que e do da en un para é con non unha os no se na por máis as dos como mais ao"
    " ten á seu súa ou ser cando moi hai nos xa está tamén só polo pola ata isto entre despois sen todos"
    " pode debe",
    "hebrew": "של את על לא הוא זה עם או כי אם גם כל היא יש אל אני לפני אחרי יותר אבל כמו רק בין אנחנו הם אין היה להיות",
    "icelandic": "og í að á er sem til um við það með fyrir ekki en af hann þetta var eru hafa úr eða"
    " ef þegar verið vera skal eftir hún þeir frá öll",
    "latvian": "un ir no uz ar ka par kā bet vai tas pēc pie līdz tika arī lai šis šo tiek būt savu ja"
    " var ne nav kas pirms visi katrs",
    "marathi": "आहे आणि या हे तो ती ते मध्ये नाही होते केला केले असे करण्यात होता आहेत यांनी की तर म्हणून त्यांच्या साठी एक किंवा नंतर सर्व",
    "persian": "و در به از که این را با است برای آن یک خود تا کرد بر هم نیز می شود شده باید یا ما آنها"
    " های ها پس اگر همه",
    "polish": "w i na z do się nie to że jest o a jak po od za przez dla ale co czy jego są oraz ich"
    " który która które może być tylko lub tym po przed każdy wszystkie jeśli należy między",
    "slovak": "a v sa na je že s z o do aj k vo pre za by ale po ako ktoré ktorý ktorá alebo byť sú"
    " bolo tiež len až medzi pri musí môže ak keď bol každý všetky pred nie je podľa",
    "slovenian": "in v je da na se za so z ki pa s ne po kot tudi od do pri ali bi še ter ko lahko biti"
    " vse pred mora samo med če kateri vsak niso",
    "ukrainian": "і в на що не з та до у за це як він вона вони від про для але або якщо його її які"
    " який також після перед при бути був може має тільки всі між кожен є",
    "urdu": "کے میں کی ہے اور سے کا کو اس پر یہ نے کہ ایک ہیں بھی کر نہیں تو ہو گیا کیا جو تھا لیے یا"
    " ان تک ساتھ بعد ہر",
    "vietnamese": "và của là có trong được cho không các với một người này để những đã từ khi đến về sẽ"
    " phải cũng hoặc như tại theo nếu mỗi sau trước",
}
