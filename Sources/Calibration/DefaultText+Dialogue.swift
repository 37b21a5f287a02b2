// The default calibration text is under the licence of the project, see LICENSE.

extension DefaultText {
  /// Talk: a play, a help line, a chat, an interview, a channel.
  static let dialogue: [String] = [
    #"""
    MARTA: You're early. I haven't even put the kettle on.
    JONAS: The train was on time for once. I didn't know what to do with myself.
    MARTA: Sit down, then. Not there, that chair is only for looking at. How's your father?
    JONAS: He says he's fine. He says it the way other people say the house is on fire.
    MARTA: So he's worried about the operation.
    JONAS: He's worried about the dog. The operation he's got written in the calendar between the dentist \#
    and the elections, as if it were nothing. But the dog has to go somewhere for two weeks, and you know \#
    how she is.
    MARTA: She bit the postman.
    JONAS: She bit a postman. There's a new one. They get along.
    MARTA: And you want me to take her.
    JONAS: I didn't say that.
    MARTA: You came on an early train, you sat in the wrong chair, and you've praised nothing I own. You \#
    want something. Milk?
    JONAS: A little. Would you?
    MARTA: Two weeks. And if she looks at the cat, I'm posting her back.

    """#,
    #"""
    "Good afternoon, technical support, you're talking to Priya. How can I help?"

    "Hello. My router has got three lights on, and the booklet says there should be four."

    "All right. Which of them is dark?"

    "The one with the little globe."

    "That's the connection to the outside, so the wireless in your house is fine, but the line isn't. Has \#
    anything changed since yesterday? New furniture, builders, a storm?"

    "We had the hall painted. Oh. Oh, dear. The painter moved the cabinet."

    "Could you have a look at the grey cable behind it? It should click when you push it in."

    "One moment… It's out. It's not just out, it's got paint on the plug. White. It matches the wall, at \#
    least."

    "Let it dry, scrape the metal contacts clean with a wooden toothpick, not with a knife, and plug it in \#
    again. The globe should blink for about a minute and then stay on."

    "And if it doesn't?"

    "Then we send you a new cable, free of charge, and you can choose the colour."

    """#,
    #"""
    User: I've got 40 guests coming on Saturday and I was going to make chili. How much should I cook?

    Reply: For a main dish, count on about 350 to 400 ml per adult. With 40 guests that makes 14 to 16 \#
    litres, so two large stock pots. If you're also serving rice and bread, 12 litres will probably do. Are \#
    there many children, or guests who don't eat meat?

    User: About ten kids, and I think five vegetarians.

    Reply: Then I'd make two batches. One of 9 litres with meat, mildly seasoned, with hot sauce on the \#
    table for those who want it. And one of 4 litres with beans, peppers and sweet potato; there are always \#
    more people who take the vegetarian one than you'd think. Make both on Friday. Chili tastes better on \#
    the second day, and it cools faster if you divide it into shallow containers before you put it in the \#
    refrigerator.

    User: good point. can i reheat 9 litres in one pot without burning the bottom??

    Reply: You can, but slowly: a low flame, a splash of water or stock, and a stir every few minutes, \#
    right down to the bottom. It takes the better part of an hour. Alternatively use the oven, covered, at \#
    150 °C. It should be steaming hot all the way through (at least 75 °C) before you serve it.

    """#,
    #"""
    Transcript, second interview

    Q. You'd been at the observatory for how long by then?
    A. Eleven years. Twelve in the spring.
    Q. And you had seen nothing like it before?
    A. I'd seen everything like it before. Planes, satellites, a moth on the lens, once a student with a \#
    torch. That's the job, you know: you spend one hour looking and nine hours finding out what you've \#
    fooled yourself with.
    Q. But this time you couldn't find out.
    A. I didn't say that. I said it took nine months instead of nine hours.
    Q. (pause) So you do know what it was.
    A. Yes. It's in the paper; nobody reads past the second page. It was a reflection from the new \#
    greenhouse in the valley. They grow peppers there. They switch on the lamps at four in the morning, \#
    when electricity is cheap.
    Q. Were you disappointed?
    A. For a day. Then I did the sum the other way round: if we can see a pepper farm by accident, \#
    reflected off the underside of a thin cloud, from sixty kilometres away, then the instrument is twice \#
    as good as we'd promised. That's how we got the grant.

    """#,
    #"""
    <tomasz> anyone around? the nightly build is red again
    <wren> define "again"
    <tomasz> third night. linker runs out of memory on the small runner
    <wren> that's not a failing test then, that's a failing landlord
    <tomasz> :) still red though
    <ines> we could turn off debug info for that target, it's 70% of the object files
    <wren> or split it in two? it has been "temporarily" in one piece since 2019
    <tomasz> splitting is right, stripping is today
    <ines> I'll strip it today and open an issue for the split. who wants to be assigned
    <wren> *looks at shoes*
    <ines> congratulations wren

    """#,
  ]
}
