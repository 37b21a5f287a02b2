// The default calibration text is under the licence of the project, see LICENSE.

extension DefaultText {
  /// Stories.
  static let narrative: [String] = [
    #"""
    The ferry that crossed the strait every morning was older than anyone who worked on it. Its brass had \#
    been polished so often that the maker's name had worn away, and the captain, a short woman called Ragna \#
    Holt, liked to say that the ship had forgotten where it came from and so had no reason to turn back. \#
    She said this to every new deckhand, and every new deckhand laughed, because she paid them.

    That autumn the new hand was a boy of seventeen named Teo, who had come down from the hill villages \#
    with one bag and a letter from his uncle. He had never seen so much water. On the first crossing he \#
    held the rail with both hands and watched the town shrink until the church was no bigger than a tooth. \#
    By the fourth crossing he had learned to coil a rope; by the tenth he could do it while talking. What \#
    he could not learn was to stop looking down.

    "What do you expect to find there?" Ragna asked him one day. The fog was thick, and she was steering by \#
    the sound of the bell on the southern buoy.

    "My grandfather," said Teo. "He went out in a boat before I was born and nobody brought him back."

    Ragna said nothing for a while. The bell rang twice, fainter than it should have been, and she turned \#
    the wheel a hand's width to the left. "The sea keeps things," she said at last, "but it doesn't keep \#
    them in one place. If you want to find somebody, ask the people who waited for him. They remember where \#
    he stood."

    So on his free Sunday Teo took the bus to the fishing quarter and knocked on doors. An old man with a \#
    pipe remembered a loud voice and a green jacket. A woman who mended nets remembered a debt, which she \#
    forgave on the spot. And at the last house, behind a window full of geraniums, he met somebody who \#
    remembered everything: the weather on that morning, the patched sail, the joke about the herring, and \#
    the way the green jacket had grown smaller and smaller until it might have been a leaf.

    When he came back to work on Monday, he coiled the ropes, checked the lifeboats and took his place at \#
    the bow. The church shrank to the size of a tooth. Teo looked at the horizon, where the light was \#
    coming from, and did not look down at all.

    """#,
    #"""
    Nobody in the department could say when the clock had begun to run backwards. It hung above the filing \#
    cabinets, round and white, with a crack across the seven, and since nobody had needed to know the time \#
    since the telephones were replaced, it might have been going the wrong way for weeks.

    Mrs. Okafor noticed it first because she was the only one who left at five. She looked up to see \#
    whether she could reasonably put on her coat, and found that it was ten past four; she filed three more \#
    letters, looked again, and found that it was four. "Well," she said to the room, "that's not going to \#
    work," and she went home by the sun.

    The caretaker took the clock down, opened it, found nothing wrong and hung it up again. The head of the \#
    department wrote a memorandum. In the memorandum he pointed out that the clock was correct twice as \#
    often as a clock that stood still, namely four times a day, and that its replacement could therefore \#
    not be charged to the current budget. It was the longest memorandum he had written that year, and \#
    several people framed it.

    After a month they had grown used to it. Appointments were made for "a quarter past, wrong way". The \#
    apprentice, a quiet young man who painted in the evenings, claimed that he felt younger. It was he who \#
    finally solved the matter, without meaning to: he hung a small mirror on the opposite wall, because he \#
    wanted to see the door from his desk, and in the mirror the clock ran forwards, though with its numbers \#
    reversed. From then on anybody who wanted to know the time turned his back on it.

    """#,
    #"""
    It had rained for nine days when the hare came to the door of the badger.

    "My house is full of water," said the hare. "May I come in until it stops?"

    "You may come in," said the badger, "but you must tell me something that I don't know. That is the \#
    price of a dry bed."

    The hare shook his ears and thought about it. He told the badger that the mill had lost its wheel, but \#
    the badger knew that. He told her that the owl was going deaf, but the badger had known it before the \#
    owl did. He told her that in the south there was a country without winter where the grass stood as high \#
    as a horse, and the badger yawned, for a swallow had told her so every spring.

    "Then I will tell you what it is like to run," said the hare. "You have never run, I think, not really. \#
    In the first moment you hear your heart, and in the second you don't hear anything, because the wind is \#
    in your ears. The ground doesn't come towards you. It is pulled away from under you like a cloth from a \#
    table, and you put your feet down only to be polite. And when you stop, the whole hill goes on running \#
    for a while, without you."

    The badger lay quite still with her chin on her paws. Outside the rain was falling into the flooded \#
    meadow, drop upon drop.

    "That," she said, "I did not know. Take the bed by the wall. It's the warm one."

    """#,
    #"""
    The last letter in the tin was addressed to nobody. Ilse knew the handwriting, narrow and upright like \#
    a row of fence posts; it was her mother's, from before the illness. She carried it to the window, sat \#
    down among the boxes that still had to be sorted, and read.

    The first page was about the garden: which of the apple trees bore fruit every second year, where the \#
    well had been before it was covered, how deep the frost went. The second page was about money, and was \#
    crossed out. On the third page the fence posts leaned a little. "I have been asked what I would do \#
    differently," her mother had written. "I would learn to drive. I would have gone to see the glacier \#
    while it was there. I would have told my sister that the blue plate was not broken by the cat. \#
    Otherwise I think I would leave it as it was, even the bad years, for they hold up the good ones the \#
    way the ugly side of an embroidery does."

    Ilse turned the sheet over. The back was empty except for a shopping list: flour, candles, thread, \#
    something for I.'s birthday.

    She laughed, and then for some time she did not laugh. Below in the street the removal men were ringing \#
    the bell. She folded the letter along its old creases, put it into her pocket rather than into a box, \#
    and went down to let them in.

    """#,
    #"""
    Chapter Four: In which an inventory is made

    They started with the cellar, since the cellar was where the smell came from. Bram held the lamp and \#
    Lucia held the notebook, and the notary, who did not like either of them, stood on the stairs and \#
    breathed through a handkerchief.

    There were two hundred and eleven bottles without labels. There was a bicycle, hung from the ceiling by \#
    its front wheel like a slaughtered animal. There were crates of newspapers, all from the same week of \#
    the same year, all unread; a stuffed heron; a machine with a crank, whose purpose Bram guessed to be \#
    the peeling of apples and Lucia the shuffling of cards. In the furthest corner, behind a curtain stiff \#
    with dust, there was a door.

    "That is not on the plan," said the notary.

    "A good many things aren't on the plan," said Bram. "Your cousin's marriage wasn't on the plan."

    "My late cousin," said the notary coldly, "had no cellar beyond this one. I have measured the house."

    Lucia, meanwhile, had tried the handle. The door opened without a sound; somebody had oiled the hinges, \#
    and not long ago. Behind it, a flight of steps led down towards a light that moved slightly, as the \#
    light of a candle moves when a person has just walked past it.

    She wrote in the notebook, in her neat round hand: item 347, one staircase. Then she looked at the \#
    other two. "Shall we put down who is at the bottom of it," she asked, "or leave that for tomorrow?"

    """#,
    #"""
    Captain's log, survey vessel Patience, day 212.

    Contact with the outer relay was lost at 03:40 and restored at 05:15. Cause: ice on the secondary dish, \#
    again. Yusuf went out with the heater and a mallet, and I record for whoever reads these logs that the \#
    mallet was what worked. Reaction mass stands at 61 percent, water at 88. The tomatoes are doing better \#
    than the crew.

    The object we have followed since day 190 is not a comet. It has no tail, it does not tumble, and \#
    yesterday it passed behind a known star for exactly as long as a body eleven kilometres wide should, \#
    which is four times wider than its brightness allows unless it is painted black. Dr. Anand wishes it to \#
    be noted that nature makes very black things. I wish it to be noted that nature does not usually \#
    correct its course. The change was small, some nine millimetres per second, and we have three \#
    independent measurements of it.

    We took a vote on whether to go closer, not because the rules require it but because there are six of \#
    us and it seemed right. Five were for it. The sixth abstained, and then asked if she could be the one \#
    to steer.

    """#,
  ]
}
