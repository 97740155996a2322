"""Everything the starter model can be asked to draw, as tables: one row per concept.

A row is `name = code point of the emoji, in hex; synonyms`. `{}` in a code point stands for the skin tone and makes the
concept a person.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

HEAD_HAIR = ("brown hair", "pink hair", "blue hair")
"""Made by tinting the black hair of light-skinned heads."""


@dataclass(frozen=True, slots=True)
class Concept:
    """One nameable object. `hair`: further hair colours and their code points; `tints`: those made from black hair."""

    name: str
    codepoint: str
    aliases: tuple[str, ...] = ()
    hair: Mapping[str, str] = field(default_factory=dict)
    tints: tuple[str, ...] = ()
    has_hair: bool = False
    has_builds: bool = False

    @property
    def words(self) -> tuple[str, ...]:
        """The name and its synonyms, any of which a caption may use."""
        return (self.name, *self.aliases)

    @property
    def is_person(self) -> bool:
        """Whether there is a picture for each skin tone."""
        return "{}" in self.codepoint


def _things(table: str) -> tuple[Concept, ...]:
    concepts = []
    for row in filter(None, map(str.strip, table.splitlines())):
        name, _, rest = row.partition(" = ")
        codepoint, _, aliases = rest.partition("; ")
        concepts.append(Concept(name, codepoint, tuple(filter(None, aliases.split(", ")))))
    return tuple(concepts)


def _hair(stem: str, sign: str) -> dict[str, str]:
    """The hair colours that adults have pictures of; `stem` is the plain adult, `sign` the gender sign."""
    joined = {"red hair": "1f9b0", "curly hair": "1f9b1", "white hair": "1f9b3"}
    return {"blond hair": f"1f471-{{}}-200d-{sign}-fe0f"} | {
        name: f"{stem}-200d-{code}" for name, code in joined.items()
    }


PEOPLE = (
    Concept("man", "1f468-{}", ("young man",), _hair("1f468-{}", "2642"), HEAD_HAIR, has_hair=True),
    Concept("woman", "1f469-{}", ("young woman",), _hair("1f469-{}", "2640"), HEAD_HAIR, has_hair=True),
    Concept("boy", "1f466-{}", (), {}, HEAD_HAIR, has_hair=True),
    Concept("girl", "1f467-{}", (), {}, HEAD_HAIR, has_hair=True),
    Concept("standing man", "1f9cd-{}-200d-2642-fe0f", ("man standing",), has_hair=True, has_builds=True),
    Concept("standing woman", "1f9cd-{}-200d-2640-fe0f", ("woman standing",), has_hair=True, has_builds=True),
    *_things("""
        walking man = 1f6b6-{}-200d-2642-fe0f; man walking
        walking woman = 1f6b6-{}-200d-2640-fe0f; woman walking
        bald man = 1f468-{}-200d-1f9b2
        bearded man = 1f9d4-{}-200d-2642-fe0f; man with a beard
        old man = 1f474-{}; grandfather, elderly man
        old woman = 1f475-{}; grandmother, elderly woman
        baby = 1f476-{}; infant
        running man = 1f3c3-{}-200d-2642-fe0f; runner
        dancing woman = 1f483-{}; dancer
        meditating woman = 1f9d8-{}-200d-2640-fe0f; woman doing yoga
        princess = 1f478-{}; queen
        prince = 1f934-{}; king
        wizard = 1f9d9-{}-200d-2642-fe0f; mage
        astronaut = 1f468-{}-200d-1f680; spaceman
        doctor = 1f469-{}-200d-2695-fe0f; physician
        chef = 1f468-{}-200d-1f373; cook
        police officer = 1f46e-{}-200d-2642-fe0f; policeman
        firefighter = 1f468-{}-200d-1f692; fireman
        construction worker = 1f477-{}-200d-2642-fe0f; builder
        bride = 1f470-{}-200d-2640-fe0f; woman in a wedding dress
        man in a suit = 1f935-{}-200d-2642-fe0f; groom
        woman with a headscarf = 1f9d5-{}; woman in a hijab
    """),
)

ANIMALS = _things("""
    dog = 1f436; puppy, dog face
    cat = 1f431; kitten, cat face
    lion = 1f981
    tiger = 1f42f
    horse = 1f434; pony
    unicorn = 1f984
    zebra = 1f993
    cow = 1f42e
    pig = 1f437; piglet
    sheep = 1f411; lamb
    goat = 1f410
    monkey = 1f435
    gorilla = 1f98d
    wolf = 1f43a
    fox = 1f98a
    raccoon = 1f99d
    bear = 1f43b; brown bear
    polar bear = 1f43b-200d-2744-fe0f
    koala = 1f428
    panda = 1f43c
    rabbit = 1f430; bunny
    mouse = 1f42d
    hamster = 1f439
    hedgehog = 1f994
    bat = 1f987
    camel = 1f42a
    giraffe = 1f992
    elephant = 1f418
    kangaroo = 1f998
    deer = 1f98c
    penguin = 1f427
    chick = 1f425; baby chicken
    chicken = 1f414; hen
    bird = 1f426; red bird
    duck = 1f986
    swan = 1f9a2
    eagle = 1f985
    owl = 1f989
    flamingo = 1f9a9
    parrot = 1f99c
    frog = 1f438
    crocodile = 1f40a; alligator
    turtle = 1f422; tortoise
    snake = 1f40d
    dragon = 1f432; dragon face
    dinosaur = 1f995
    whale = 1f433
    dolphin = 1f42c
    fish = 1f420
    shark = 1f988
    octopus = 1f419
    crab = 1f980
    snail = 1f40c
    butterfly = 1f98b
    caterpillar = 1f41b
    bee = 1f41d; honeybee
    ladybug = 1f41e; ladybird
""")

FOOD = _things("""
    apple = 1f34e; red apple
    green apple = 1f34f
    pear = 1f350
    tangerine = 1f34a; orange fruit
    lemon = 1f34b
    banana = 1f34c
    watermelon = 1f349
    grapes = 1f347
    strawberry = 1f353
    peach = 1f351
    cherries = 1f352; cherry
    pineapple = 1f34d
    avocado = 1f951
    tomato = 1f345
    carrot = 1f955
    corn = 1f33d; ear of corn
    broccoli = 1f966
    eggplant = 1f346; aubergine
    hot pepper = 1f336-fe0f; chili
    bread = 1f35e; loaf of bread
    croissant = 1f950
    pretzel = 1f968
    pancakes = 1f95e
    cheese = 1f9c0
    fried egg = 1f373
    hamburger = 1f354; burger
    french fries = 1f35f; fries
    pizza = 1f355; slice of pizza
    hot dog = 1f32d
    taco = 1f32e
    sushi = 1f363
    popcorn = 1f37f
    ice cream = 1f366; ice cream cone
    donut = 1f369; doughnut
    cookie = 1f36a
    cake = 1f382; birthday cake
    cupcake = 1f9c1; muffin
    chocolate bar = 1f36b
    lollipop = 1f36d
    cup of coffee = 2615; coffee
    teapot = 1fad6
    glass of milk = 1f95b; milk
    beer = 1f37a; mug of beer
    glass of wine = 1f377; wine
""")

VEHICLES_AND_PLACES = _things("""
    car = 1f697; automobile, red car
    taxi = 1f695; cab
    bus = 1f68c
    ambulance = 1f691
    fire truck = 1f692; fire engine
    police car = 1f693
    truck = 1f69a; lorry
    tractor = 1f69c
    motorcycle = 1f3cd-fe0f; motorbike
    bicycle = 1f6b2; bike
    train = 1f682; steam train, locomotive
    helicopter = 1f681
    airplane = 2708-fe0f; plane
    rocket = 1f680; spaceship
    flying saucer = 1f6f8; ufo
    sailboat = 26f5; boat
    ship = 1f6a2
    house = 1f3e0; home
    castle = 1f3f0
    church = 26ea
    school = 1f3eb
    tent = 26fa
    ferris wheel = 1f3a1
    mountain = 1f3d4-fe0f; snowy mountain
    volcano = 1f30b
    fountain = 26f2
""")

NATURE = _things("""
    tree = 1f333
    pine tree = 1f332; fir
    palm tree = 1f334
    cactus = 1f335
    sunflower = 1f33b; flower
    rose = 1f339; red rose
    tulip = 1f337
    cherry blossom = 1f338; pink flower
    clover = 1f340; four leaf clover
    maple leaf = 1f341
    mushroom = 1f344; red mushroom
    sun = 2600-fe0f
    moon = 1f319; crescent moon
    star = 2b50; yellow star
    planet = 1fa90; ringed planet
    earth = 1f30d; globe
    cloud = 2601-fe0f
    rainbow = 1f308
    snowflake = 2744-fe0f
    snowman = 26c4
    fire = 1f525; flame
    lightning bolt = 26a1; lightning
""")

THINGS = _things("""
    heart = 2764-fe0f; red heart
    robot = 1f916
    ghost = 1f47b
    alien = 1f47d
    skull = 1f480
    balloon = 1f388; red balloon
    gift = 1f381; present
    trophy = 1f3c6; golden cup
    soccer ball = 26bd; football
    basketball = 1f3c0
    tennis racket = 1f3be; tennis
    die = 1f3b2; dice
    teddy bear = 1f9f8
    kite = 1fa81
    pumpkin = 1f383; halloween pumpkin
    christmas tree = 1f384
    umbrella = 2602-fe0f
    sunglasses = 1f576-fe0f
    shirt = 1f455; t-shirt
    dress = 1f457
    crown = 1f451; golden crown
    top hat = 1f3a9
    backpack = 1f392
    sneaker = 1f45f; shoe, running shoe
    ring = 1f48d; diamond ring
    diamond = 1f48e; gem
    bell = 1f514; golden bell
    guitar = 1f3b8
    violin = 1f3bb
    trumpet = 1f3ba
    drum = 1f941
    phone = 1f4f1; smartphone
    laptop = 1f4bb; computer
    television = 1f4fa; tv
    camera = 1f4f7
    light bulb = 1f4a1; lamp
    candle = 1f56f-fe0f
    book = 1f4d5; red book
    envelope = 2709-fe0f; letter
    pencil = 270f-fe0f
    scissors = 2702-fe0f
    key = 1f511; golden key
    lock = 1f512; padlock
    hammer = 1f528
    sword = 1f5e1-fe0f; dagger
    shield = 1f6e1-fe0f
    magnet = 1f9f2
    chair = 1fa91
    bathtub = 1f6c1
    alarm clock = 23f0; clock
""")

CONCEPTS: tuple[Concept, ...] = (*PEOPLE, *ANIMALS, *FOOD, *VEHICLES_AND_PLACES, *NATURE, *THINGS)
CONCEPT_BY_NAME: dict[str, Concept] = {concept.name: concept for concept in CONCEPTS}
