// The default calibration text is under the licence of the project, see LICENSE.

extension DefaultText {
  /// Encyclopedic explanations.
  static let explanation: [String] = [
    #"""
    Tides

    The tides are the regular rise and fall of the sea, caused by the gravity of the Moon and, to a lesser \#
    degree, of the Sun. Gravity weakens with distance; the side of the Earth that faces the Moon is \#
    therefore pulled a little more strongly than the Earth's centre, and the far side a little less. Seen \#
    from the centre, both sides are stretched outwards, so that there are two bulges of water, not one. As \#
    the Earth turns beneath them, most coasts see two high tides in every lunar day of about 24 hours and \#
    50 minutes.

    When the Sun, the Moon and the Earth stand in a line, at new and full moon, the two pulls add up to the \#
    large spring tides; at the half moons they partly cancel, and the tides are called neap. The real \#
    height at a given place depends far more on the shape of the coast and the depth of the sea than on \#
    astronomy. Water that is driven into a narrowing bay can rise by more than fifteen metres, as in the \#
    Bay of Fundy in Canada, while an almost closed sea such as the Mediterranean hardly moves.

    Because the bulges are dragged along by the rotating Earth, they run slightly ahead of the Moon. \#
    Friction slows the Earth's rotation by about two milliseconds per century, and in exchange the Moon is \#
    lifted into a higher orbit: it recedes by some 3.8 centimetres a year, which has been measured with \#
    reflectors left on its surface.

    """#,
    #"""
    How bread rises

    Flour is mostly starch, but what makes bread possible is its protein. When two of the wheat proteins, \#
    glutenin and gliadin, come together with water, they form long elastic threads called gluten. Kneading \#
    aligns the threads into sheets. Yeast, a single-celled fungus, feeds on sugars that enzymes in the \#
    flour split off from the starch, and gives off carbon dioxide and a little alcohol. The gas cannot \#
    escape through the sheets of gluten and blows them up into bubbles.

    In the oven several things happen in quick succession. Up to about 50 °C the yeast works faster and \#
    faster, then dies. The gas expands, the alcohol and part of the water evaporate, and the loaf grows by \#
    a third; bakers call it oven spring. Between 60 and 80 °C the starch swells and sets, and the gluten \#
    stiffens around it. From then on the crumb keeps its shape. Only the surface becomes hotter than \#
    boiling water, and there, above 140 °C, sugars and amino acids react to hundreds of brown and fragrant \#
    compounds. That is the crust.

    Salt is not only there for the taste: it tightens the gluten and slows the yeast. Fat does the opposite \#
    of tightening. It coats the threads and keeps them short, which is what "shortening" means.

    """#,
    #"""
    A public library in the modern sense is paid for by taxes and open to everybody without a fee. \#
    Collections of books are as old as writing, and some of the old ones were vast, yet they belonged to \#
    temples, kings, monasteries or universities. Subscription libraries, whose members bought books \#
    together, spread in the eighteenth century; the step from there to a service for all was taken in \#
    Britain with the Public Libraries Act of 1850, which permitted towns to raise a small rate for the \#
    purpose, and at about the same time in New England.

    The first such libraries kept their shelves closed. A reader looked up a title in the catalogue, filled \#
    in a slip and waited. Open shelves, where people could look for themselves, were considered an \#
    invitation to theft until experience showed that the losses cost less than the clerks. Open shelves \#
    also needed an order that visitors could follow, and this is one reason why decimal classification, \#
    which gives each subject a number and each finer subject one more digit, became so widespread.

    Whether libraries should lend novels was disputed for decades. One side saw in them the sugar that \#
    would bring readers to the bread; the other held that ratepayers need not buy anybody sugar.

    """#,
    #"""
    Why is the sky blue, and why is it not violet?

    Sunlight contains all colours. On its way through the air it meets molecules far smaller than its \#
    wavelength, and these scatter it in all directions. How strongly depends steeply on the wavelength: \#
    with its fourth power, inversely, as Lord Rayleigh worked out in 1871. Blue light of 450 nanometres is \#
    scattered about four times as much as red light of 650. Wherever we look in the sky, away from the Sun, \#
    we see light that was scattered towards us, and so we see more of the short waves.

    Violet is scattered even more. But the Sun gives off less of it than of blue, the upper atmosphere \#
    absorbs a part, and above all our eyes are not very sensitive there. The mixture that reaches the eye \#
    stimulates the three kinds of cones in just about the way that a pale blue mixed with some white would. \#
    In the evening, when the light has come a long way through the air, most of the blue has been scattered \#
    out of the direct beam, and what is left looks orange or red.

    """#,
    #"""
    The heart of a hummingbird beats more than a thousand times a minute when it hovers, and that of a \#
    diving blue whale fewer than ten times. Yet over a lifetime both come to something like a billion \#
    beats. The rule is rough, but it holds for many mammals and birds over a huge range of sizes, and it \#
    follows from how things scale. An animal's need for energy grows more slowly than its weight: a \#
    creature ten thousand times as heavy needs not ten thousand times the food but about a thousand times. \#
    Biologists call this Kleiber's law and still argue about its cause. The most popular explanation has to \#
    do with the branching networks of vessels that must reach every cell.

    Humans are an exception. With some sixty to eighty beats a minute, and thanks to clean water, vaccines \#
    and dentists, we reach between two and three billion.

    """#,
    #"""
    Inflation is a sustained rise of the general level of prices. If a basket of goods that cost 100 crowns \#
    last year costs 104 this year, the rate is four percent, and a crown buys about 3.8 percent less. \#
    Statistical offices choose the basket from surveys of what households actually buy: rent, food, \#
    transport, clothes, haircuts. Since habits change, so does the basket; film for cameras has left it, \#
    and streaming services have come in.

    Economists distinguish several causes. Demand may outrun what an economy can produce. Costs may rise, \#
    for example when oil becomes scarce, and be passed on. And people may simply expect prices to rise, ask \#
    for higher wages on that account, and thereby bring about what they expected. Central banks fight \#
    inflation by raising interest rates, which makes borrowing dearer and saving more attractive. The \#
    medicine is slow; it takes a year or more until most of the effect is felt, so that the bank always \#
    steers by a map of where the economy used to be.

    """#,
    #"""
    A lighthouse lens has a peculiar problem. To send a beam to the horizon, a lens must be large, and a \#
    large lens of the usual form must be thick: a block of glass a metre across would weigh tons, crack as \#
    it cooled, and swallow much of the light that it was meant to send out. In the 1820s the French \#
    engineer Augustin Fresnel realized that the inside of the block does nothing. Light is bent only where \#
    it enters the glass and where it leaves. If the thickness between the surfaces is cut away in rings, so \#
    that only a thin, stepped skin is left, then each ring still bends the light by the proper angle, and \#
    the whole weighs a fraction.

    The rings can be cast and ground one by one and set into a frame of brass. Around the central lens \#
    further rings act as prisms, catching light that would otherwise go up to the clouds or down to the \#
    rocks. The first lamp of the new kind was lit on the tower of Cordouan, at the mouth of the Gironde, in \#
    1823, and could be seen from more than thirty kilometres away. Today the same idea, pressed in plastic, \#
    serves in overhead projectors, magnifying cards and the lamps of traffic lights.

    """#,
    #"""
    Peat forms where plants grow faster than they rot. In a waterlogged bog there is hardly any oxygen, the \#
    water is acid, and the mosses themselves give off substances that keep bacteria away. Dead leaves and \#
    stems pile up, a millimetre or so in a year, a metre in a thousand years. Whatever falls in is \#
    preserved as well. Pollen grains tell which trees stood around the bog when each layer was laid down; \#
    wooden trackways, butter packed in barrels, and the bodies of people who died before the Romans came \#
    have been found with their skin, their hair and their last meal intact.

    Although peatlands cover only about three percent of the land, they hold more carbon than all the \#
    forests together. Drained for farming or dug up for fuel, they give it back: once air gets in, decay \#
    starts where it left off. Blocking the ditches with simple dams raises the water again, and within a \#
    few years the moss returns by itself.

    """#,
  ]
}
