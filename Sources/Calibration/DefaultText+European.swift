// The default calibration text is under the licence of the project, see LICENSE.

extension DefaultText {
  /// Languages of Europe that are written in Latin or Greek letters.
  static let european: [String] = [
    #"""
    Der alte Bahnhof von Kleinau ist seit zwölf Jahren stillgelegt, aber die Uhr geht noch. Jeden Montag um \#
    acht steigt Frau Brandt mit einem Schlüssel, den sie von ihrem Vater hat, auf eine Leiter und zieht das \#
    Werk auf. Bezahlt wird sie dafür nicht. Wer sie fragt, warum sie es tue, bekommt zur Antwort, eine \#
    stehengebliebene Uhr mache einen Ort alt, eine gehende nur pünktlich.

    Im vergangenen Sommer kaufte ein Ehepaar aus der Stadt das Gebäude, um darin ein Café zu eröffnen. Die \#
    beiden ließen das Dach decken, schliffen die Dielen ab und stellten fest, dass sich der Wartesaal im \#
    Winter kaum heizen lässt. »Dann heizt man eben nur die Bänke«, sagte der Ofensetzer, der für seine \#
    Sparsamkeit bekannt ist, und baute ihnen tatsächlich eine gemauerte Sitzbank, durch die der warme Rauch \#
    zieht. Seitdem sitzt dort an kalten Nachmittagen das halbe Dorf. Züge fahren keine mehr; dafür kommen, \#
    wie Frau Brandt sagt, die Leute jetzt an.

    """#,
    #"""
    Die Kündigungsfrist beträgt für beide Seiten drei Monate zum Monatsende. Der Vermieter ist \#
    verpflichtet, die Kaution innerhalb einer angemessenen Frist abzurechnen und den nicht verbrauchten \#
    Teil samt Zinsen zurückzuzahlen. Schönheitsreparaturen übernimmt der Mieter nur, soweit die Wohnung bei \#
    Einzug frisch gestrichen war. Haustiere sind nach vorheriger Absprache erlaubt; Kleintiere wie Hamster \#
    oder Fische bedürfen keiner Genehmigung.

    """#,
    #"""
    On m'avait dit que le marché fermait à midi, et j'arrivai à midi moins cinq, essoufflé, un panier vide \#
    au bras. La plupart des marchands rangeaient déjà leurs caisses. Seule une vieille dame, assise \#
    derrière trois melons et un bouquet de thym, n'avait pas l'air pressée.

    « Vous cherchez quelque chose de précis, demanda-t-elle, ou vous cherchez en général ? »

    Je répondis que je voulais préparer un dîner pour une personne qui n'aimait rien. Elle réfléchit \#
    longuement, choisit un melon, le soupesa, le reposa, en prit un autre. « Celui-ci est pour ce soir. Pas \#
    pour demain, attention. Les gens qui n'aiment rien ont presque toujours mangé les choses un jour trop \#
    tard. » Elle avait raison. Nous nous sommes mariés au printemps suivant, et chaque été, à midi moins \#
    cinq, je retourne acheter un melon.

    """#,
    #"""
    L'eau de pluie peut servir à arroser le jardin, à laver la voiture ou à alimenter les toilettes, mais \#
    elle n'est pas potable. Il faut installer un filtre à l'entrée de la cuve, la protéger de la lumière \#
    pour éviter les algues, et prévoir un trop-plein. Comptez environ 600 litres par an et par mètre carré \#
    de toit dans une région tempérée.

    """#,
    #"""
    Cuando mi abuelo cumplió ochenta años decidió aprender a nadar. En la piscina municipal lo pusieron con \#
    los niños de seis, que al principio se rieron de él y después le enseñaron todo lo que sabían: a hacer \#
    burbujas, a flotar boca arriba, a no tenerle miedo al ruido del agua en los oídos. Él, a cambio, les \#
    contaba historias en el vestuario. La monitora se quejaba de que ninguna clase terminaba a su hora.

    En septiembre nadó por primera vez el largo entero, veinticinco metros, sin tocar la pared ni el fondo. \#
    Tardó casi cuatro minutos. Los niños corrían por el borde gritando su nombre, y una señora que no lo \#
    conocía de nada se echó a llorar. «¿Y ahora qué?», le pregunté cuando salió. Se secó la cara, miró la \#
    piscina como quien mira un mapa y dijo: «Ahora, de vuelta».

    """#,
    #"""
    ¿Cómo se limpia una cafetera italiana? Basta con agua caliente y un cepillo; el jabón deja un sabor \#
    desagradable y estropea el aluminio. Conviene desmontarla por completo, secar cada pieza y guardarla \#
    abierta. Si el café sale amargo, baje el fuego: el agua no debe hervir con violencia, sino subir \#
    despacio.

    """#,
    #"""
    Il fornaio di via dei Glicini apriva alle quattro del mattino, quando per strada non c'era nessuno \#
    tranne i gatti e, una volta alla settimana, il signor Attilio, che soffriva d'insonnia. Non comprava \#
    mai niente. Si appoggiava allo stipite, guardava le pagnotte entrare nel forno e parlava di ponti, \#
    perché per quarant'anni aveva costruito ponti. «Il pane e i ponti», diceva, «hanno lo stesso problema: \#
    bisogna sapere quando lasciarli in pace.» Il giorno che non venne, il fornaio gli portò a casa due \#
    rosette ancora calde, e lo trovò addormentato in poltrona, per la prima volta dopo mesi, con la \#
    finestra aperta sull'odore della strada.

    """#,
    #"""
    A biblioteca itinerante chegava à nossa aldeia na primeira quinta-feira de cada mês. Era uma carrinha \#
    cinzenta, com as prateleiras presas por elásticos para que os livros não caíssem nas curvas. O \#
    motorista, que também era o bibliotecário, conhecia os gostos de toda a gente: à minha avó trazia \#
    romances policiais, ao padre livros de viagens, e a mim, que ainda não sabia ler bem, atlas enormes que \#
    eu mal conseguia carregar. Foi assim que aprendi os nomes dos rios antes de aprender a tabuada. Hoje, \#
    quando atravesso um deles de comboio, ainda espero ver as linhas azuis e os números pequeninos da \#
    profundidade.

    """#,
    #"""
    Toen de dijk in februari begon te lekken, belde niemand de brandweer. Men belde Hendrik, die \#
    eenentachtig was en al dertig jaar met pensioen, maar die als enige nog wist waar de oude duiker lag. \#
    Hij kwam op de fiets, met zijn laarzen aan het stuur, keek een poosje naar het water en wees toen met \#
    zijn pijp naar een plek in het gras. 'Daar graven', zei hij, 'en niet te diep.' Om drie uur 's nachts \#
    hadden ze de houten klep gevonden en dichtgezet. De burgemeester wilde hem een lintje geven, maar \#
    Hendrik vroeg liever om een nieuwe fietsband.

    """#,
    #"""
    Na strychu domu, który kupiliśmy jesienią, stała skrzynia pełna szklanych klisz. Przez całą zimę \#
    wieczorami podnosiliśmy je jedną po drugiej do lampy. Były na nich wesela, konie, sklep z rowerami, \#
    dzieci w za dużych butach i ten sam pies na co trzecim zdjęciu, zawsze trochę poruszony. Nikt w okolicy \#
    nie pamiętał już fotografa. Dopiero listonosz, spojrzawszy na psa, roześmiał się i powiedział: \#
    „Przecież to Burek mojej prababki! Gryzł wszystkich oprócz jednego człowieka, tego z aparatem, bo on \#
    nosił w kieszeni kiełbasę”. I tak, dzięki psu, dowiedzieliśmy się, jak fotograf miał na imię.

    """#,
    #"""
    Varje höst lägger kommunen ut listor i biblioteket där man kan skriva upp sig för att skotta snö åt en \#
    granne. De flesta som skriver upp sig är över sextio, och de flesta som får hjälp är yngre än de. Ingen \#
    tycker att det är konstigt. »Den som har tid har också en skovel«, säger Gunvor, som har organiserat \#
    det hela i nitton år och själv bor på tredje våningen utan vare sig trappa eller uppfart att skotta.

    """#,
    #"""
    Evimizin arkasındaki dut ağacı her yıl haziranda bütün mahalleyi bir araya getirirdi. Büyükler çarşafın \#
    dört ucundan tutar, en hafifimiz dala tırmanır, bir sallayışta ortalık mora boyanırdı. Annem lekelerin \#
    ancak ham dutla çıkacağını söylerdi; denedik, doğruydu. Geçen sonbahar yol genişletilirken ağacı kesmek \#
    istediler. Muhtar, doksan yaşındaki Saniye teyzeyi çağırdı. O da ağacın gölgesine bir iskemle koyup \#
    oturdu ve akşama kadar kalkmadı. Yol şimdi orada hafif bir kıvrım yapıyor; haritaya bakınca nedenini \#
    kimse anlamıyor.

    """#,
    #"""
    Ο φάρος του νησιού δεν χρειάζεται πια φύλακα, γιατί ανάβει και σβήνει μόνος του. Ο κυρ Σταμάτης όμως \#
    ανεβαίνει κάθε βράδυ τα ενενήντα έξι σκαλοπάτια, όπως έκανε επί τριάντα χρόνια, και κάθεται δίπλα στη \#
    λάμπα με ένα βιβλίο. «Το φως το βλέπουν τα καράβια», λέει, «αλλά κάποιος πρέπει να βλέπει και τα \#
    καράβια». Στο τετράδιό του έχει γράψει όλα τα ονόματα, την ώρα και τον άνεμο. Πέρσι, όταν χάθηκε ένα \#
    μικρό ιστιοφόρο, αυτό το τετράδιο έδειξε στους διασώστες προς τα πού να ψάξουν.

    """#,
    #"""
    În fiecare toamnă, bunica punea gogonele la murat în același borcan verde, care pe vremuri fusese al \#
    farmacistului. Rețeta n-o știa nimeni. După ce a murit, am găsit-o lipită pe fundul borcanului: „Sare \#
    cât îți trebuie, răbdare de două ori pe atât.”

    """#,
    #"""
    Hälytys tuli puoli kuudelta: hirvi seisoi jään keskellä eikä uskaltanut liikkua. Palomiehet ryömivät \#
    sen luo vatsallaan, levittivät eteen vanhoja mattoja ja jäivät odottamaan. Kului tunti. Sitten hirvi \#
    nosti sorkkansa, laski sen matolle ja käveli rantaan niin arvokkaasti kuin olisi itse tilannut koko \#
    järjestelyn.

    """#,
  ]
}
