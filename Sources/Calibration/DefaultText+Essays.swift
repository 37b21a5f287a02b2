// The default calibration text is under the licence of the project, see LICENSE.

extension DefaultText {
  /// Essays, invented history and lives, a commentary, an abstract, a text adventure.
  static let essays: [String] = [
    #"""
    In praise of the second draft

    Nobody has ever asked a writer to show the first draft of anything, except other writers, who ask out \#
    of malice. The first draft is where one finds out what one thinks; it is written for an audience of \#
    one, and that one is usually disappointed. The second draft is where the reader comes in. Suddenly \#
    there is somebody in the room who does not know what you meant, who has other things to do, and who \#
    will leave as soon as the door is left open.

    Most of what is called style happens at this point, and it consists of removing things. Out goes the \#
    first paragraph, in which you cleared your throat. Out goes the clever comparison, because it is about \#
    you. The adverbs go, then half of the adjectives, then, painfully, the fact that took you two days to \#
    find and that has nothing to do with the matter. What remains is shorter by a third, and for the first \#
    time it seems to have been written by a person who knew from the start where it was going. That is an \#
    illusion. But it is a polite one, like a set table.

    I don't trust people who claim to write only once. Either they revise in their heads, in which case \#
    they are lucky, or they make us do it.

    """#,
    #"""
    The city of Varrow stands where two trade roads met and where, for about three hundred years, each was \#
    taxed. Its earliest charter, of 1184, grants the burghers a market on Tuesdays and the right to hang \#
    thieves, in that order. The walls were built in brick, since the nearest quarry belonged to the bishop, \#
    with whom the town was at law for most of the thirteenth century; when the bishop finally won, he found \#
    that the costs of the case exceeded the value of the quarry.

    After the plague of 1350 the population fell from perhaps nine thousand to less than half, and fields \#
    within the walls were grazed by sheep. Wool revived the town. By 1500 its weavers' guild owned eleven \#
    houses, an altar and a ship, and its cloth, a heavy blue twill, was known as far away as Novgorod. The \#
    decline came slowly and then at once: the river silted up, the fashion turned to lighter stuffs, and in \#
    1632 a garrison quartered in the guildhall burnt the looms for firewood during a single cold week in \#
    February.

    The railway passed Varrow by at a distance of four kilometres, which the council of the day counted as \#
    a victory. To this the town owes what visitors now come to see. There was never enough money to pull \#
    anything down.

    """#,
    #"""
    Amara Velasco (born 1931, died 2009) was a botanist and illustrator who is remembered chiefly for her \#
    monograph on the mosses of the southern highlands. The daughter of a railway clerk, she left school at \#
    fourteen to work in a seed shop, where she taught herself Latin from the packets. A customer, the \#
    retired professor Iñigo Barre, noticed that she corrected the labels, and lent her a microscope.

    Between 1955 and 1983 she walked, by her own careful estimate, nineteen thousand kilometres, mostly \#
    alone and mostly uphill. She described forty-three species new to science, all of them from life and in \#
    watercolour; photographs, she held, "show what the light did, not what the plant does". Two of her \#
    names have since been sunk into synonymy, which she is said to have predicted. She refused an honorary \#
    doctorate in 1979 on the ground that it would have to be collected in June, when the spores are ripe.

    Her notebooks, 112 in number, are kept at the herbarium that bears her name. Besides the mosses they \#
    contain remarks on weather, mule drivers, the quality of soup in mountain inns, and, on the last page \#
    of the last one, a drawing of her own boots.

    """#,
    #"""
    Should a town plant trees along a street where there is room only for trees or for parked cars? The \#
    arguments for the cars are not foolish. People who work shifts cannot take the last bus at eleven; a \#
    plumber needs his van near the house; and a shopkeeper who has seen trade fall once will not be \#
    comforted by a study from another country.

    But consider what the space does. A parked car occupies twelve square metres for twenty-three hours a \#
    day in order to be driven for one. A lime tree on the same spot shades three house fronts, takes up \#
    several hundred litres of a cloudburst that would otherwise run into the cellars, and lowers the \#
    temperature on a July afternoon by as much as four degrees, on the very days on which the old and the \#
    ill die of heat. It does so without being asked and for eighty years.

    The honest answer is that we can't have everything on eleven metres between walls. We can, however, \#
    stop pretending that keeping the street as it is costs nothing. It has a price. It is merely that the \#
    people who pay it don't get a ticket.

    """#,
    #"""
    "Quarter-final, second leg, ninety minutes gone and they've put up four more. Four! Salinas takes the \#
    throw quickly, back to Oduya, Oduya looks up, nothing on, he goes long – and it's headed clear, only as \#
    far as Brandt – Brandt hits it first time – oh, that's come off the post! It's come off the post and \#
    it's still in play, the keeper's on the ground, there's a leg, there's another leg, somebody put it \#
    somewhere – and it's over the line! I think it's over the line! The flag stays down! I've no idea who \#
    got the last touch, and I don't think they have either, there are nine of them in a heap by the corner \#
    flag and one of them is the physiotherapist. Two–two on the night, four–three on aggregate, and unless \#
    I'm very much mistaken the oldest club in the league, who were bankrupt in August, are in the \#
    semi-final."

    """#,
    #"""
    Abstract. Urban foxes are commonly assumed to depend on household waste, yet direct evidence from \#
    medium-sized cities is scarce. We analysed the stomach contents of 214 road-killed foxes (Vulpes \#
    vulpes) collected over three years in a city of 280,000 inhabitants, and compared them with stable \#
    isotope ratios in whiskers from a subset (n = 61). Anthropogenic food made up 38 % of the volume (95 % \#
    confidence interval 33–43 %), less than reported from larger cities, while small mammals, chiefly \#
    voles, contributed 29 % and fruit 17 %. Isotope ratios showed that individuals differed consistently in \#
    diet, and that these differences were better explained by the distance to the nearest allotment garden \#
    than by population density or by season. We found no effect of sex. Our results suggest that gardens \#
    rather than bins sustain foxes in cities of this size, and that measures which aim only at waste are \#
    unlikely to reduce their numbers. Keywords: carnivore, diet, generalist, isotopes, urban ecology.

    """#,
    #"""
    I used to think that my grandmother was deaf in one ear, because she always turned the left side of her \#
    face towards people. It was only at her funeral, from her brother, that I learned the reason. As a girl \#
    she had been told by a photographer that this was her better side. She was nine. She kept it up for \#
    eighty-one years, through two marriages, a war, and six children, none of whom ever noticed, since we \#
    had all grown up on that side of her.

    I've looked at the photographs since. There is one, taken without her knowledge on a beach, in which \#
    she faces the camera from the right, laughing at something with her mouth full. It's by far the best \#
    picture of her. I had it framed, and then, after some thought, I hung it where she would have had to \#
    turn her head to see it.

    """#,
    #"""
    The room is dark except for the emergency light above the hatch. You can hear water, not dripping but \#
    flowing, somewhere beneath the grating. On the bench lie a torch (dead), a spanner, and a paperback \#
    whose last chapter has been torn out. A ladder leads up. A corridor leads east, and it's warmer there.

    > take spanner
    Taken. It's heavier than it looks.

    > open hatch
    The wheel turns half way and sticks. There's rust on the spindle.

    > hit wheel with spanner
    You hit it. The noise is tremendous. Far off in the corridor something stops humming, and that's when \#
    you realize that there was a hum.

    > turn wheel
    It gives. Cold air, stars, the smell of kelp. You were never underground at all.

    """#,
    #"""
    What is the difference between a virus and a bacterium? A bacterium is a living cell. It takes in food, \#
    gives off waste and divides, and most kinds have nothing to do with us; a spoonful of garden soil holds \#
    hundreds of millions. A virus is far smaller and cannot do anything by itself. It is a set of \#
    instructions, written in DNA or RNA, wrapped in protein and sometimes in a film of fat, and it \#
    multiplies only when a cell mistakes the instructions for its own. That is why antibiotics, which \#
    attack the machinery of bacteria (their walls, for instance, or the way in which they build proteins), \#
    do nothing against a cold: there is no machinery to attack. Vaccines work against both. They show the \#
    immune system a harmless likeness, so that it needs days less to answer when the original turns up.

    And why do we still have colds, then? Because there are more than two hundred viruses that cause them, \#
    and each keeps changing its coat.

    """#,
  ]
}
