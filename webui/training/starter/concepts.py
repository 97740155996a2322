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
        mermaid = 1f9dc-{}-200d-2640-fe0f
        fairy = 1f9da-{}-200d-2640-fe0f
        superhero = 1f9b8-{}-200d-2642-fe0f
        santa claus = 1f385-{}; santa
        farmer = 1f468-{}-200d-1f33e
        scientist = 1f469-{}-200d-1f52c
        singer = 1f469-{}-200d-1f3a4
        ninja = 1f977-{}
        surfer = 1f3c4-{}-200d-2642-fe0f
        cyclist = 1f6b4-{}-200d-2642-fe0f; man on a bicycle
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
    ram = 1f40f
    llama = 1f999; alpaca
    hippo = 1f99b; hippopotamus
    rhinoceros = 1f98f; rhino
    leopard = 1f406
    squirrel = 1f43f-fe0f; chipmunk
    otter = 1f9a6
    skunk = 1f9a8
    badger = 1f9a1
    sloth = 1f9a5
    beaver = 1f9ab
    bison = 1f9ac; buffalo
    mammoth = 1f9a3
    turkey = 1f983
    rooster = 1f413
    peacock = 1f99a
    dove = 1f54a-fe0f; pigeon
    lizard = 1f98e; gecko
    tyrannosaurus = 1f996; t-rex
    seal = 1f9ad
    squid = 1f991
    shrimp = 1f990; prawn
    lobster = 1f99e
    blowfish = 1f421; pufferfish
    ant = 1f41c
    spider = 1f577-fe0f
    scorpion = 1f982
    beetle = 1fab2
    mosquito = 1f99f
    seashell = 1f41a; shell
    boar = 1f417
    poodle = 1f429
    orangutan = 1f9a7
    rat = 1f400
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
    melon = 1f348
    mango = 1f96d
    kiwi = 1f95d; kiwi fruit
    coconut = 1f965
    blueberries = 1fad0; blueberry
    olive = 1fad2
    potato = 1f954
    garlic = 1f9c4
    onion = 1f9c5
    cucumber = 1f952
    bell pepper = 1fad1
    lettuce = 1f96c; leafy green
    peanuts = 1f95c; peanut
    baguette = 1f956
    bagel = 1f96f
    waffle = 1f9c7
    chicken leg = 1f357; drumstick
    steak = 1f969; meat
    bacon = 1f953
    sandwich = 1f96a
    burrito = 1f32f
    egg = 1f95a
    salad = 1f957
    bowl of rice = 1f35a; rice
    ramen = 1f35c; noodle soup
    spaghetti = 1f35d; pasta
    dumpling = 1f95f
    pie = 1f967
    slice of cake = 1f370; shortcake
    candy = 1f36c; sweet
    pudding = 1f36e; custard
    honey = 1f36f; honey pot
    baby bottle = 1f37c
    cup of tea = 1f375; green tea
    bottle of champagne = 1f37e; champagne
    cocktail = 1f378; martini
    juice = 1f9c3; juice box
    ice cube = 1f9ca
    spoon = 1f944
    salt = 1f9c2; salt shaker
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
    blue car = 1f699; suv
    pickup truck = 1f6fb
    racing car = 1f3ce-fe0f; race car
    scooter = 1f6f5; motor scooter
    kick scooter = 1f6f4
    skateboard = 1f6f9
    roller skate = 1f6fc
    bullet train = 1f685
    tram = 1f68a
    canoe = 1f6f6; kayak
    speedboat = 1f6a4; motorboat
    anchor = 2693
    satellite = 1f6f0-fe0f
    parachute = 1fa82
    traffic light = 1f6a6
    stop sign = 1f6d1
    roller coaster = 1f3a2
    carousel = 1f3a0; carousel horse
    circus tent = 1f3aa; circus
    hospital = 1f3e5
    bank = 1f3e6
    factory = 1f3ed
    office building = 1f3e2; skyscraper
    mosque = 1f54c
    hut = 1f6d6; cabin
    desert island = 1f3dd-fe0f; island
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
    potted plant = 1fab4; house plant
    seedling = 1f331; sprout
    wheat = 1f33e
    hibiscus = 1f33a
    daisy = 1f33c; white flower
    bouquet = 1f490; bunch of flowers
    fallen leaf = 1f342; autumn leaf
    rock = 1faa8; stone
    full moon = 1f315
    comet = 2604-fe0f
    tornado = 1f32a-fe0f; whirlwind
    drop of water = 1f4a7; droplet
    wave = 1f30a; ocean wave
    rain cloud = 1f327-fe0f; rain
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
    broken heart = 1f494
    smiling face = 1f600; smiley, happy face
    crying face = 1f62d; sad face
    angry face = 1f621
    clown = 1f921; clown face
    thumbs up = 1f44d
    fist = 270a
    eye = 1f441-fe0f
    lips = 1f444; mouth
    tooth = 1f9b7
    brain = 1f9e0
    bone = 1f9b4
    high heel = 1f460; high-heeled shoe
    boot = 1f462
    jeans = 1f456; trousers
    coat = 1f9e5; jacket
    socks = 1f9e6; pair of socks
    gloves = 1f9e4
    scarf = 1f9e3
    kimono = 1f458
    necktie = 1f454; tie
    baseball cap = 1f9e2; cap
    graduation cap = 1f393
    glasses = 1f453; spectacles
    handbag = 1f45c
    briefcase = 1f4bc
    suitcase = 1f9f3; luggage
    lipstick = 1f484
    baseball = 26be
    volleyball = 1f3d0
    bowling pins = 1f3b3; bowling
    boxing glove = 1f94a
    ice skate = 26f8-fe0f
    sled = 1f6f7
    target = 1f3af; dart board
    medal = 1f3c5; gold medal
    bow and arrow = 1f3f9
    yo-yo = 1fa80
    piano = 1f3b9; piano keys
    saxophone = 1f3b7
    microphone = 1f3a4
    headphones = 1f3a7
    radio = 1f4fb
    accordion = 1fa97
    game controller = 1f3ae; gamepad
    joystick = 1f579-fe0f
    puzzle piece = 1f9e9; jigsaw piece
    paint palette = 1f3a8; palette
    ball of yarn = 1f9f6; yarn
    magic wand = 1fa84
    crystal ball = 1f52e
    ribbon = 1f380; pink bow
    red lantern = 1f3ee; paper lantern
    flashlight = 1f526; torch
    magnifying glass = 1f50d
    telescope = 1f52d
    microscope = 1f52c
    test tube = 1f9ea
    syringe = 1f489
    pill = 1f48a; capsule
    door = 1f6aa
    bed = 1f6cf-fe0f
    sofa = 1f6cb-fe0f; couch
    toilet = 1f6bd
    window = 1fa9f
    broom = 1f9f9
    basket = 1f9fa
    bucket = 1faa3
    toothbrush = 1faa5
    fire extinguisher = 1f9ef
    shopping cart = 1f6d2
    printer = 1f5a8-fe0f
    floppy disk = 1f4be
    battery = 1f50b
    telephone = 260e-fe0f
    wristwatch = 231a; watch
    hourglass = 231b
    newspaper = 1f4f0
    scroll = 1f4dc
    open book = 1f4d6
    money bag = 1f4b0; bag of money
    coin = 1fa99; gold coin
    mailbox = 1f4eb
    cardboard box = 1f4e6; package
    paintbrush = 1f58c-fe0f
    crayon = 1f58d-fe0f
    ruler = 1f4cf
    trash can = 1f5d1-fe0f; waste basket
    axe = 1fa93
    saw = 1fa9a
    wrench = 1f527; spanner
    screwdriver = 1fa9b
    gear = 2699-fe0f; cogwheel
    ladder = 1fa9c
    bricks = 1f9f1; brick wall
    bomb = 1f4a3
    compass = 1f9ed
    amphora = 1f3fa; vase
    picture frame = 1f5bc-fe0f; framed picture
    megaphone = 1f4e3
    firecracker = 1f9e8
    nesting doll = 1fa86
""")

CONCEPTS: tuple[Concept, ...] = (*PEOPLE, *ANIMALS, *FOOD, *VEHICLES_AND_PLACES, *NATURE, *THINGS)
CONCEPT_BY_NAME: dict[str, Concept] = {concept.name: concept for concept in CONCEPTS}
