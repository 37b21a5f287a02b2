"""A small grammar of English for tiny test models.

Nothing here is collected from anywhere: every word list and sentence below was
written for this project. `documents(seed)` yields an endless, reproducible
sequence of short texts: stories, dialogues, sums, lists, riddles, letters.

In a template `[a|b|c]` picks one alternative (they nest) and `{slot}` inserts a
value the document has fixed, so that names, things and numbers stay consistent
from the first sentence of a document to the last.
"""

import random
import re

GIRLS = "Anna Mia Lucy Nora Ella Rosa Ivy Clara Hanna Zoe Maya Lena Ada Ruth Tess Kim".split()
BOYS = "Tom Ben Max Leo Sam Otto Finn Jack Paul Noah Emil Hugo Dan Luke Omar Theo".split()
NUMBERS = ("zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen "
           "sixteen seventeen eighteen nineteen twenty").split()
DAYS = "Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split()
MONTHS = "January February March April May June July August September October November December".split()
FEELINGS = "happy sad proud tired angry afraid surprised hungry sleepy cold brave worried".split()
COLOURS = "red blue green yellow white black brown orange purple pink grey".split()
THINGS = ("ball kite book lamp hat key cup boat drum coat box bell rope basket ladder mirror blanket "
          "bucket pencil whistle wagon clock button feather marble spoon scarf map").split()
PLURALS = "apples pears eggs plums nuts shells stones coins stamps cards cakes carrots beans flowers leaves".split()
ADJECTIVES = "small big old new shiny heavy light round soft broken wooden strange lovely tiny warm".split()
PLACES = ("the park|the beach|the forest|the market|the school|the river|the hill|the garden|the library|"
          "the station|the farm|the lake|the bridge|the village|the mill|the harbour").split("|")
HIDING = ("under the bed|behind the door|on the roof|in the tall grass|next to the stove|inside an old boot|"
          "between two stones|on the top shelf|at the bottom of the well|in the hollow tree").split("|")
WEATHER = {
    "sunny": "[The sky was blue|The sun was high and bright|There was not one cloud]",
    "rainy": "[Rain fell on the roofs|Big drops ran down the windows|The street was full of puddles]",
    "windy": "[The wind shook the trees|Leaves flew through the air|A strong wind blew from the sea]",
    "snowy": "[Snow lay on every fence|The world was white and quiet|White flakes came down slowly]",
    "foggy": "[Nobody could see the church|The fog was thick as soup|The lamps were only pale spots]",
}
SEASONS = {
    "spring": ("the flowers open", "a light jacket", "birds build their nests"),
    "summer": ("the days are long", "a straw hat", "children swim in the lake"),
    "autumn": ("the leaves turn brown", "a warm sweater", "farmers bring in the corn"),
    "winter": ("the lake is frozen", "thick gloves", "we sit close to the fire"),
}
# animal: (sound, home, food, legs, size rank, young)
ANIMALS = {
    "ant": ("nothing at all", "in a hill of sand", "crumbs", 6, 1, "grub"),
    "bee": ("buzz", "in a hive", "honey", 6, 2, "grub"),
    "mouse": ("squeak", "in a hole in the wall", "cheese", 4, 3, "pup"),
    "frog": ("croak", "in the pond", "flies", 4, 4, "tadpole"),
    "duck": ("quack", "on the lake", "weeds", 2, 5, "duckling"),
    "hen": ("cluck", "in the barn", "corn", 2, 6, "chick"),
    "cat": ("meow", "in the house", "fish", 4, 7, "kitten"),
    "fox": ("yip", "in a den", "berries", 4, 8, "cub"),
    "dog": ("woof", "in the yard", "bones", 4, 9, "puppy"),
    "sheep": ("baa", "on the hill", "clover", 4, 10, "lamb"),
    "pig": ("oink", "in the mud", "turnips", 4, 11, "piglet"),
    "lion": ("roar", "on the plain", "meat", 4, 12, "cub"),
    "cow": ("moo", "on the farm", "grass", 4, 13, "calf"),
    "horse": ("neigh", "in the stable", "oats", 4, 14, "foal"),
    "elephant": ("toot", "in the hot south", "branches", 4, 15, "calf"),
}
OPPOSITES = ("big small|hot cold|fast slow|high low|dark bright|wet dry|old new|full empty|hard soft|open closed|"
             "early late|long short|loud quiet|near far|sweet sour|heavy light|rich poor|thick thin").split("|")
FACTS = ("grass green|snow white|coal black|a lemon yellow|blood red|a clear sky blue|a carrot orange|"
         "chocolate brown|a plum purple|ash grey|a young pig pink|a banana yellow|milk white|a pea green").split("|")
MIXES = ("red blue purple|red yellow orange|blue yellow green|red white pink|black white grey|red green brown").split("|")
ALPHABET = ("apple bear candle door egg flag goat house island jar king leaf moon nest oven pen queen road ship tree "
            "umbrella violin window fox yarn zebra").split()
JOBS = {
    "baker": ("bread", "oven"), "farmer": ("corn", "plough"), "doctor": ("sick people well", "bag"),
    "teacher": ("children clever", "chalk"), "tailor": ("coats", "needle"), "smith": ("horseshoes", "hammer"),
    "painter": ("pictures", "brush"), "cook": ("soup", "pot"), "builder": ("houses", "saw"),
    "potter": ("bowls", "wheel"), "weaver": ("carpets", "loom"), "gardener": ("roses grow", "spade"),
}
DISHES = {
    "pancakes": ("flour, milk and eggs", "pan", "jam"), "soup": ("carrots, beans and water", "pot", "bread"),
    "a cake": ("butter, sugar and eggs", "tin", "cream"), "tea": ("leaves and hot water", "kettle", "honey"),
    "a salad": ("tomatoes, oil and salt", "bowl", "cheese"), "porridge": ("oats and milk", "pot", "sugar"),
    "a pie": ("apples, flour and butter", "dish", "cream"), "toast": ("two slices of bread", "pan", "butter"),
}
TRAVEL = {"train": ("ticket", "rails"), "bus": ("seat", "road"), "boat": ("sail", "water"), "bicycle": ("bell", "path"),
          "cart": ("horse", "lane"), "tram": ("window", "street"), "sledge": ("rope", "snow")}

OPENINGS = [
    "[Once|Once upon a time|Long ago], [there was|there lived] a {kind} called {name}.",
    "{name} was a [kind|clever|curious|quiet|cheerful] child who lived near {place}.",
    "[One|On a] {weather} {day}, {name} [walked|ran|went|came] to {place}.",
    "It was a {weather} {day} in {month}. {sky}.",
    "{name} and {friend} were [good|old|best] friends. [They met every {day}|They lived in the same street].",
    "[Early in the morning|Late in the evening|Just after lunch], {name} [looked out of the window|opened the door].",
    "\"[Come along|Hurry up|Wake up|Look outside], {name}!\" [called|said|shouted] {friend}.",
    "Nobody in the village knew {place} better than {name}.",
]
MIDDLES = [
    "{He} [wanted|hoped|planned] to [find|buy|borrow|build] a {adj} {thing}.",
    "{friend} [had|carried|brought] a {adj} {colour} {thing}. {name} liked it [very much|at once|a lot].",
    "[Suddenly|All at once|Then], {he} [saw|heard|noticed] a {animal} {hiding}. It said \"{sound}\".",
    "The {animal} was {feeling}, because it had [lost its {young}|found no {food}|hurt its foot].",
    "\"[Where is|Have you seen|Who took] my {thing}?\" [asked|cried|said] {friend}. \"It was {hiding}.\"",
    "They [looked|searched] {hiding} and {hiding2}, but the {thing} was not there.",
    "{name} [counted|put down|picked up] {n} {plural} and gave {m} of them to {friend}. {He} kept {rest}.",
    "\"I am [so|very|a little] {feeling},\" said {name}. \"[Let us rest|Let us go home|We must try again|Give me your hand].\"",
    "[An old|A kind|A tall] {job} [came by|stopped|passed] and [showed them the way|gave them a {thing}|asked for their names].",
    "The {job} worked with a {tool}. \"[Sit down|Come in|Do not be afraid],\" the {job} said.",
    "{He} [climbed over a wall|crossed the bridge|waited by the gate|sang a song] and [did not look back|thought of {friend}|felt {feeling}].",
    "The {adj} {thing} was {colour} on the outside and {colour2} on the inside.",
    "It [began|started] to get dark. [The first star came out|An owl called|The moon rose over {place}].",
    "\"{N} {plural} for one {thing}?\" {friend} [laughed|smiled]. \"[That is fair|That is too much|Why not]!\"",
    "They [shared|ate] {dish} with {topping} and [talked|laughed] until [noon|night|the bell rang].",
    "[But|Still,] the {thing} was too {adj} to carry, so {friend} [fetched|found] a {vehicle}.",
    "The wind took the {thing} and [threw|blew] it [into the river|over the fence|high into a tree].",
    "{name} gave the {animal} some {food}. [Soon|After a while] it was not {feeling} any more.",
    "[Nobody|Only the {animal}] knew that the {thing} was {hiding}.",
    "\"[Please|Oh please], {friend}, [help me|wait for me|tell me the truth]!\" said {name}. And {friend} did.",
]
ENDINGS = [
    "[In the end|At last|Finally], they found the {thing} {hiding}. [Everyone was happy|What a day|{name} laughed].",
    "{name} went home and [fell asleep at once|told {his} mother everything|put the {thing} on the shelf].",
    "[From that day on|Since then], {name} and {friend} [shared everything|never quarrelled again|came back every {day}].",
    "And the {animal}? It [followed them home|went back to its {young}|still lives {home}].",
    "\"[Thank you|Good night|See you on {next_day}],\" said {friend}, and {name} [smiled|waved|nodded].",
    "So {name} learned that [a friend is better than a {thing}|it is good to share|small hands can do big things|nothing is lost for ever].",
    "That night {he} dreamed of a {colour} {animal} with a {adj} {thing}.",
]
QUESTIONS = [
    ("Where is the {thing}?", "[It is|You will find it|I put it] {hiding}."),
    ("What colour is your {thing}?", "[It is {colour}|Mine is {colour}, and yours is {colour2}]."),
    ("What day is it [today]?", "[It is|Today is] {day}, and tomorrow is {next_day}."),
    ("How many {plural} do you have?", "[I have|Only|There are] {n}. [Take {m}, then I have {rest}|No more and no less]."),
    ("What does the {animal} say?", "[It says|The {animal} says] \"{sound}\"."),
    ("Where does the {animal} live?", "It lives {home} and eats {food}."),
    ("What are you cooking?", "[I am making|Today we have] {dish}. [You need|It is made of] {recipe}."),
    ("How will you get to {place}?", "[By {vehicle}|I will take the {vehicle}], if it is not too {weather}."),
    ("Who made this {thing}?", "[The {job} did|It was the {job}], with a {tool}."),
    ("Why are you so {feeling}?", "[Because {friend2} took my {thing}|I do not know|It is the {weather} weather]."),
    ("Is the {thing} {adj}?", "[Yes, very {adj}|No, not at all|Look for yourself]."),
    ("What is {n} minus {m}?", "[That is easy|I know that]: it is {rest}."),
]
REMARKS = ["[Good|I see|Fine|Very well|How nice].", "[Thank you|Thanks], {a}.", "[Are you sure|Really], {a}?",
           "[Let us go|We should hurry|I must go now].", "[That is funny|How strange|I thought so]."]


def expand(text, slots, rng):
    """Resolves `[a|b]` from the inside out, then `{slot}`."""
    while True:
        found = re.search(r"\[([^\[\]]*)\]", text)
        if not found:
            break
        text = text[:found.start()] + rng.choice(found.group(1).split("|")) + text[found.end():]
    for _ in range(2):  # a slot may itself hold slots
        text = re.sub(r"\{(\w+)\}", lambda m: str(slots[m.group(1)]), text)
    text = re.sub(r"\ba (?=[aeiou])", "an ", text)
    return re.sub(r"\s+([.,?!])", r"\1", text)


def capital(text):
    return text[:1].upper() + text[1:]


def scene(rng):
    """The fixed facts of one document."""
    girl = rng.random() < 0.5
    name = rng.choice(GIRLS if girl else BOYS)
    friend, friend2 = rng.sample([x for x in GIRLS + BOYS if x != name], 2)
    day = rng.randrange(7)
    animal = rng.choice(list(ANIMALS))
    sound, home, food, legs, _, young = ANIMALS[animal]
    weather = rng.choice(list(WEATHER))
    job = rng.choice(list(JOBS))
    dish = rng.choice(list(DISHES))
    n = rng.randrange(3, 13)
    m = rng.randrange(1, n - 1)
    hiding, hiding2 = rng.sample(HIDING, 2)
    colour, colour2 = rng.sample(COLOURS, 2)
    slots = dict(
        name=name, friend=friend, friend2=friend2, kind="girl" if girl else "boy",
        he="she" if girl else "he", He="She" if girl else "He", his="her" if girl else "his",
        him="her" if girl else "him", day=DAYS[day], next_day=DAYS[(day + 1) % 7], month=rng.choice(MONTHS),
        animal=animal, sound=sound, home=home, food=food, legs=NUMBERS[legs], young=young, weather=weather,
        job=job, tool=JOBS[job][1], dish=dish, recipe=DISHES[dish][0], vessel=DISHES[dish][1],
        topping=DISHES[dish][2], n=NUMBERS[n], N=capital(NUMBERS[n]), m=NUMBERS[m], rest=NUMBERS[n - m], plural=rng.choice(PLURALS),
        thing=rng.choice(THINGS), adj=rng.choice(ADJECTIVES), colour=colour, colour2=colour2, hiding=hiding,
        hiding2=hiding2, place=rng.choice(PLACES), feeling=rng.choice(FEELINGS), vehicle=rng.choice(list(TRAVEL)))
    slots["sky"] = expand(WEATHER[weather], slots, rng)
    return slots


def say(rng, slots, *templates):
    return " ".join(capital(expand(t, slots, rng)) for t in templates)


def story(rng):
    s = scene(rng)
    parts = [rng.choice(OPENINGS), *rng.sample(MIDDLES, rng.randrange(3, 8)), rng.choice(ENDINGS)]
    text = [say(rng, s, part) for part in parts]
    if len(text) > 6 and rng.random() < 0.5:
        cut = len(text) // 2
        return " ".join(text[:cut]) + "\n" + " ".join(text[cut:])
    return " ".join(text)


def dialogue(rng):
    s = scene(rng)
    lines = []
    for question, answer in rng.sample(QUESTIONS, rng.randrange(2, 5)):
        lines.append(f"{s['name']}: " + say(rng, s, question))
        lines.append(f"{s['friend']}: " + say(rng, s, answer))
    if rng.random() < 0.7:
        s["a"] = s["friend"]
        lines.append(f"{s['name']}: " + say(rng, s, rng.choice(REMARKS)))
    return "\n".join(lines)


def sums(rng):
    words, lines = rng.random() < 0.5, []
    for _ in range(rng.randrange(3, 8)):
        a, b = rng.randrange(0, 11), rng.randrange(0, 11)
        plus = rng.random() < 0.6
        if not plus:
            a += b
        c = a + b if plus else a - b
        if words:
            lines.append(capital(f"{NUMBERS[a]} {'plus' if plus else 'minus'} {NUMBERS[b]} is {NUMBERS[c]}."))
        else:
            lines.append(f"{a} {'+' if plus else '-'} {b} = {c}")
    return (" " if words else "\n").join(lines)


def word_problem(rng):
    s = scene(rng)
    a, b = rng.randrange(3, 11), rng.randrange(1, 10)
    gain = rng.random() < 0.5
    b = b if gain else min(b, a - 1)
    s.update(x=NUMBERS[a], y=NUMBERS[b], z=NUMBERS[a + b if gain else a - b])
    change = ("[{friend} gave {him} {y} more|Then {he} found {y} more|{He} bought {y} more on {day}]." if gain else
              "[{He} gave {y} to {friend}|{He} lost {y} on the way|{friend} took {y} of them].")
    return say(rng, s, "{name} had {x} {plural}.", change,
               "[How many {plural} does {he} have now? {He} has {z}|Now {he} has {z} {plural}].")


def calendar(rng):
    names, word = (DAYS, "day") if rng.random() < 0.6 else (MONTHS, "month")
    i, n = rng.randrange(len(names)), len(names)
    before, now, after = names[i - 1], names[i], names[(i + 1) % n]
    if rng.random() < 0.3:
        k = rng.randrange(3, 7)
        run = [names[(i + j) % n] for j in range(k)]
        return f"{rng.choice(['Say', 'Learn', 'Write'])} the {word}s in order: " + ", ".join(run[:-1]) + f" and {run[-1]}."
    s = dict(b=before, n=now, a=after, w=word)
    if word == "day":
        return say(rng, s, "[Today is|It is] {n}.", "[Tomorrow is|Tomorrow will be] {a}.", "Yesterday was {b}.")
    return say(rng, s, "[This|The] month is {n}.", "[The next month|After that] [is|comes] {a}.", "Before {n} comes {b}.")


def animal_facts(rng):
    s = scene(rng)
    facts = ["It [lives|makes its home] {home}.", "It [eats|likes] {food}.", "It says \"{sound}\".",
             "It has {legs} legs.", "Its child is called a {young}."]
    first, *others = rng.sample(facts, rng.randrange(3, 6))
    first = first.replace("Its child", "A young {animal}").replace("It ", "The {animal} ")
    return say(rng, s, first, *others)


def riddle(rng):
    s = scene(rng)
    hints = ["I have {legs} legs.", "I live {home}.", "I eat {food}.", "I say \"{sound}\".", "My child is a {young}."]
    return say(rng, s, *rng.sample(hints, rng.randrange(2, 5)), "What am I? I am a {animal}.")


def compare(rng):
    a, b = rng.sample(list(ANIMALS), 2)
    bigger = ANIMALS[a][4] > ANIMALS[b][4]
    s = dict(a=a, b=b, w="bigger" if bigger else "smaller", o="smaller" if bigger else "bigger",
             yes="Yes" if bigger else "No")
    return say(rng, s, "[The {a} is {w} than the {b}. The {b} is {o} than the {a}.|"
                       "Is the {a} bigger than the {b}? {yes}, the {a} is {w}.]")


def colours(rng):
    lines = []
    for fact in rng.sample(FACTS, rng.randrange(2, 5)):
        thing, colour = fact.rsplit(" ", 1)
        lines.append(capital(f"{thing} is {colour}."))
    if rng.random() < 0.6:
        a, b, c = rng.choice(MIXES).split()
        if rng.random() < 0.5:
            a, b = b, a
        lines.append(rng.choice([f"Mix {a} and {b} and you get {c}.", f"{capital(a)} and {b} make {c}."]))
    return " ".join(lines)


def opposites(rng):
    lines = []
    for pair in rng.sample(OPPOSITES, rng.randrange(2, 6)):
        a, b = pair.split() if rng.random() < 0.5 else reversed(pair.split())
        lines.append(rng.choice([f"The opposite of {a} is {b}.", f"What is not {a} is {b}.", f"{capital(a)} is not {b}."]))
    return " ".join(lines)


def counting(rng):
    step = rng.choice([1, 1, 2, -1])
    start = rng.randrange(0, 12) if step > 0 else rng.randrange(8, 21)
    run = [x for x in range(start, start + 8 * step, step) if 0 <= x <= 20]
    if rng.random() < 0.5:
        return rng.choice(["Count with me: ", "We count: "]) + ", ".join(NUMBERS[x] for x in run) + "."
    return " ".join(str(x) for x in run)


def alphabet(rng):
    i = rng.randrange(0, 22)
    run = [(chr(65 + j), ALPHABET[j]) for j in range(i, min(26, i + rng.randrange(3, 7))) if chr(65 + j) != "X"]
    return " ".join(f"{letter} is for {word}." for letter, word in run)


def recipe(rng):
    s = scene(rng)
    return say(rng, s, "[To make|If you want] {dish}, you need {recipe}.",
               "[First|To begin], [wash your hands|put on an apron|light the fire].",
               "Then [mix|put] everything in a {vessel}.", "[Wait|Stir] for {n} minutes.",
               "[Eat it|Serve it|Have it] with {topping}[.| and a friend.]")


def letter(rng):
    s = scene(rng)
    body = rng.sample(["[How are you?|I hope you are well.]", "We are at {place} and it is {weather}.", "{sky} today.",
                       "Yesterday I [saw|fed|drew] a {animal}.", "[Please|Do not forget to] bring the {colour} {thing} on {day}.",
                       "I have {n} {plural} for you.", "{friend2} is [with us|ill|here too] and [is {feeling}|says hello].",
                       "The {job} [made|sold] us a {adj} {thing}."], rng.randrange(3, 6))
    return f"Dear {s['friend']},\n{say(rng, s, *body)}\n{rng.choice(['Love', 'Your friend', 'Yours'])}, {s['name']}"


def seasons(rng):
    season = rng.choice(list(SEASONS))
    sign, wear, work = SEASONS[season]
    names = [MONTHS[m % 12] for m in {"spring": (2, 3, 4), "summer": (5, 6, 7), "autumn": (8, 9, 10),
                                      "winter": (11, 12, 13)}[season]]
    lines = rng.sample([f"In {season}, {sign}.", f"In {season} you need {wear}.", f"It is {season} and {work}.",
                        f"{names[0]}, {names[1]} and {names[2]} are the months of {season}."], rng.randrange(2, 4))
    return " ".join(lines)


def jobs(rng):
    lines = []
    for job in rng.sample(list(JOBS), rng.randrange(1, 4)):
        product, tool = JOBS[job]
        lines.append(say(rng, dict(j=job, p=product, t=tool),
                         "[The {j} makes {p}|A {j} needs a {t} and makes {p}|With a {t}, the {j} makes {p}]."))
    return " ".join(lines)


def journey(rng):
    s = scene(rng)
    s["part"], s["way"] = TRAVEL[s["vehicle"]]
    s["place2"] = rng.choice([p for p in PLACES if p != s["place"]])
    hour = rng.randrange(1, 9)
    s.update(h=NUMBERS[hour], h2=NUMBERS[hour + 2])
    return say(rng, s, "{name} [travelled|went] from {place} to {place2} by {vehicle}.",
               "[The {way} was long|There was a {adj} {part}|{He} looked at the {part}].",
               "{He} left at {h} o'clock and arrived at {h2}.", "[It took two hours|{friend} was waiting there].")


KINDS = [(story, 34), (dialogue, 14), (sums, 9), (word_problem, 8), (calendar, 5), (animal_facts, 5), (riddle, 4),
         (compare, 3), (colours, 3), (opposites, 3), (counting, 3), (alphabet, 2), (recipe, 3), (letter, 6),
         (seasons, 2), (jobs, 2), (journey, 4)]


def documents(seed):
    rng = random.Random(seed)
    makers, weights = zip(*KINDS)
    while True:
        yield rng.choices(makers, weights)[0](rng)
