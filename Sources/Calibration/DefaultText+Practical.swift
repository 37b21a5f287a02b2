// The default calibration text is under the licence of the project, see LICENSE.

extension DefaultText {
  /// Letters, instructions, minutes, reviews, terms, forecasts, news.
  static let practical: [String] = [
    #"""
    Dear Mr. Abernathy,

    Thank you for your letter of 3 March concerning the wall between our gardens. I was sorry to hear that \#
    part of it has fallen onto your rhubarb. As you rightly say, the deeds are not clear about who owns it: \#
    mine show the line on your side, yours (I understand) on mine, which is flattering to both of us but \#
    does not mend a wall.

    May I suggest that we share the cost? Mr. Doyle, the mason, has given me an estimate of £1,450, \#
    including the removal of the rubble, and could begin in the week after Easter. If you would rather ask \#
    for a second estimate, I shall of course wait for it. In the meantime I have put up some netting, so \#
    that the hens will stay at home.

    With kind regards to your wife, and apologies to the rhubarb,

    Eleanor Whitcombe

    """#,
    #"""
    Subject: Re: Re: Schedule for the March release

    Hi all,

    quick summary of this morning's call, for those who were on a plane:

    - The importer is done except for the progress bar. Deniz needs one more review on the last pull \#
    request (please, anybody!).
    - We agreed to drop the PDF export from this release. It works on small documents, but it takes four \#
    minutes and 6 GB of memory on the 900-page sample, and nobody wants to defend that in public.
    - Code freeze is moved from Thursday to the following Monday. The release date does NOT move.
    - Translations: Finnish and Portuguese are complete; Greek is at 83 %.

    Open question: do we bump the major version? The file format is compatible in one direction only (new \#
    reads old). My feeling is yes, but I can be talked out of it. Answers by Wednesday, or I'll flip a coin \#
    and report the coin's reasons.

    Best,
    Henrike

    """#,
    #"""
    How to change the inner tube of a bicycle

    You need: two tyre levers, a pump, a spare tube of the right size (it is printed on the side of the \#
    tyre, for example 37-622), and a rag.

    1. Turn the bicycle upside down. If it's the rear wheel, shift to the smallest sprocket first; the \#
    wheel comes out more easily.
    2. Open the quick release or loosen the two nuts, and lift the wheel out. Unhook the brake if it is in \#
    the way.
    3. Let out what is left of the air. Push one lever under the edge of the tyre, opposite the valve, and \#
    hook it to a spoke. Push the second one in a hand's width further along and slide it round the rim \#
    until one side of the tyre is off.
    4. Pull out the old tube. Before anything else, find out why it failed: run the rag around the inside \#
    of the tyre, and it will catch on any splinter of glass. Skip this, and you will do everything again in \#
    ten minutes.
    5. Pump a little air into the new tube, just enough to make it round. Put the valve through its hole, \#
    then lay the tube into the tyre.
    6. Work the edge of the tyre back over the rim with your thumbs, beginning at the valve. Don't use the \#
    levers for this. They pinch the tube.
    7. Check on both sides that no rubber shows between tyre and rim. Inflate to the pressure on the \#
    sidewall.
    8. Put the wheel back, close the brake, spin it once, and test the brake before you ride off.

    """#,
    #"""
    Lentil soup with lemon (serves 4)

    Ingredients: 250 g red lentils, 1 large onion, 2 carrots, 3 cloves of garlic, 1 tablespoon of tomato \#
    paste, 1 teaspoon of ground cumin, half a teaspoon of chili flakes, 1.2 litres of vegetable stock, the \#
    juice of one lemon, olive oil, salt, a handful of parsley or mint.

    Chop the onion and fry it gently in three spoons of oil until it is soft and golden, which takes longer \#
    than recipes admit: allow a quarter of an hour. Add the garlic, the carrots cut small, the cumin and \#
    the chili, and stir for a minute, until it smells right. Stir in the tomato paste and let it darken. \#
    Rinse the lentils, add them together with the stock, and simmer for 20 minutes with the lid half on. \#
    Purée one half of the soup and leave the other as it is. Season with salt and lemon juice at the very \#
    end, because acid keeps lentils from softening. Serve with the chopped herbs and a thread of good oil.

    Keeps for three days in the refrigerator; it thickens, so add water when you warm it up.

    """#,
    #"""
    Q: My basil dies every winter. What am I doing wrong?
    A: Probably nothing. Basil is an annual from the tropics, and a supermarket pot holds some twenty \#
    seedlings that starve each other. Separate them into three or four pots in spring, and take cuttings in \#
    September. A cutting in a glass of water on a bright windowsill roots within ten days.

    Q: Should I water in the morning or in the evening?
    A: In the morning if you can. Wet leaves at night invite mildew and slugs. For young plants in a heat \#
    wave the evening is better than not at all.

    Q: Is it true that coffee grounds keep snails away?
    A: In laboratory tests caffeine does, at concentrations much higher than in used grounds. As a mulch \#
    they're harmless in small amounts and useless against a determined snail.

    Q: How deep do I plant garlic?
    A: Twice as deep as the clove is long, with the pointed end up, in October. If you forget until March \#
    you'll get round bulbs without cloves. They taste the same.

    """#,
    #"""
    Minutes of the annual general meeting of the Harbour Street Allotment Association

    Present: 23 members, 4 proxies. Apologies: P. Nowak, S. Lindqvist. Chair: A. Mensah. Minutes: R. \#
    Fairweather.

    1. The minutes of last year's meeting were approved with one correction (item 6: "hose", not "horse").
    2. Treasurer's report. Income 4,310.50, expenditure 3,987.25, balance brought forward 1,102.00. The \#
    auditors found the books in order. The treasurer was discharged with 25 votes for, none against, 2 \#
    abstentions.
    3. Water. The meter showed 19 % more than in the previous year. The committee proposes timers on the \#
    three standpipes. A discussion followed on whether timers punish the wrong people. Carried, 17 to 8.
    4. Bees. Ms. Achterberg asks for permission to keep two hives on plot 14. Neighbours on plots 13 and 15 \#
    have agreed in writing. Carried unanimously, subject to a sign.
    5. Any other business. The shed roof will be repaired on the second Saturday in April; volunteers bring \#
    gloves. The chair thanked Mr. Popescu, who after thirty-one years is giving up plot 2, and who was \#
    presented with a spade.

    """#,
    #"""
    Product review (3 out of 5 stars): "Good kettle, bad manual"

    Bought this to replace an eleven-year-old one that finally gave up. Pros: it's fast (1 litre in 2 min \#
    40 s, I timed it), the handle stays cool, and it doesn't scream at you when it's finished. Cons: the \#
    lid opens only to about 60 degrees, so you can't get your hand in to clean it, and the scale on the \#
    side starts at 0.5 l although the manual says you can boil 0.3. The manual itself has been translated \#
    by somebody with a grudge. "Do not let the water be absent while the power is enjoyed" is my favourite.

    Would I buy it again? At 29.99, yes. At the 45 they're asking now, no.

    """#,
    #"""
    Terms of the prize draw. (a) The draw is open to residents aged eighteen or over, except employees of \#
    the promoter and members of their households. (b) One entry per person; entries that are incomplete, \#
    illegible or received after the closing date will not be considered. (c) The winner will be drawn at \#
    random under the supervision of an independent person within fourteen days of the closing date and \#
    notified by post. (d) If the winner does not respond within twenty-eight days of notification, the \#
    promoter may draw a substitute. (e) The prize is not transferable, and no cash alternative will be \#
    offered. (f) To the fullest extent permitted by law, the promoter shall not be liable for any loss or \#
    damage arising in connection with the draw, provided that nothing in these terms limits liability for \#
    death or personal injury caused by negligence. (g) These terms are governed by the law of the place in \#
    which the promoter is established.

    """#,
    #"""
    Weather for Thursday: a band of rain will cross from the west during the morning, heavy at times over \#
    the hills, with 15 to 25 millimetres possible above 400 metres. It reaches the east coast by \#
    mid-afternoon and clears from behind, leaving bright spells and a few showers. Highs between 9 and 12 \#
    degrees, feeling colder in a fresh to strong south-westerly wind, gusting to 70 kilometres an hour on \#
    exposed coasts. Overnight the wind drops and skies clear, with a touch of frost in sheltered valleys. \#
    Friday: dry, sunny, cold. Outlook for the weekend: uncertain; the models disagree about how quickly the \#
    next low arrives.

    """#,
    #"""
    Local news. The footbridge at Mill Lane will reopen on Saturday, five months later than planned and, \#
    the council says, "only slightly" above the original budget of 280,000. Divers had found in February \#
    that one of the piers stood not on rock, as drawings from 1931 show, but on a layer of old timber, \#
    which had to be replaced piece by piece. Traders on the east bank, who reported a loss of up to a third \#
    of their custom, have been promised a year without market fees. "I'll believe it when I walk across \#
    it," said Gwen Parry, who runs the bakery at the foot of the bridge and has baked a loaf two metres \#
    long for the occasion.

    """#,
    #"""
    Patient information: paracetamol 500 mg tablets

    What it is for: mild to moderate pain and fever. How to take it: adults and children over 12 years, one \#
    or two tablets every four to six hours as needed, no more than eight tablets in 24 hours. Swallow with \#
    water. Do not take it together with other medicines that contain paracetamol; many remedies for colds \#
    do. Ask a doctor or pharmacist first if you have liver or kidney disease, if you weigh less than 50 kg, \#
    or if you drink alcohol regularly. In case of overdose seek medical help at once, even if you feel \#
    well, because damage to the liver may show only after days.

    """#,
  ]
}
