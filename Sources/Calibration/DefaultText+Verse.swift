// The default calibration text is under the licence of the project, see LICENSE.

extension DefaultText {
  /// Poems.
  static let verse: [String] = [
    #"""
    The Cartographer's Daughter

    My father drew the coast in ink
    and left the inland bare.
    "What's there," he said, "we do not know,
    so draw a lion there."

    I drew a lion, and a tree,
    and on the tree a nest,
    a river that ran uphill first
    and then ran down, to rest.

    The ships came home with better maps,
    with soundings, salt and grain.
    They had not met my lion once.
    They'd met a lot of rain.

    Now I am old, and every inch
    is measured, named and known,
    and somewhere underneath the names
    a lion sleeps alone.

    """#,
    #"""
    Early train.
    Across the aisle a stranger
    yawns, and then I yawn.

    First frost on the roof.
    The cat walks down the ladder
    one rung at a time.

    Moving day. The wall
    still remembers where we hung
    the photograph of snow.

    """#,
    #"""
    To the Person Who Has My Old Telephone Number

    I'm sorry about my aunt. She will ring on Sundays,
    in the hour after lunch when the line used to be free,
    and she'll begin in the middle, with the neighbour's knee,
    the price of plums, who has died. You don't need to say
    much. I never did. A word like "really?" will do,
    or "no!", with the window open so that she hears
    the street go by. She is ninety-one years
    old and not confused. She knows that you're not me,
    or will by the second call. But she has learned
    this number by heart, and the heart is the last
    of the address books. Let her talk. It's past
    in twenty minutes. When she asks if you've turned
    the heating on, say yes. She'll ask if you eat.
    Say plums.

    """#,
  ]
}
