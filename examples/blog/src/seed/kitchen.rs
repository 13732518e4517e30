//! Posts about cooking.

use super::Theme;

pub(super) const KITCHEN: Theme = Theme {
    authors: &[
        ("Hanna Vogt", "Bakes before work. Her starter is older than her bicycle and better maintained."),
        (
            "Léon Mercier",
            "Cooked in other people's restaurants for eleven years, now cooks at home and writes it down.",
        ),
        ("Yuki Tanabe", "Small kitchen, sharp knife, one good pan. Interested in what can be left out of a recipe."),
        ("Rosa Benítez", "Grows more tomatoes than a balcony should carry. Preserves what the neighbours refuse."),
    ],
    subjects: &[
        "rye bread",
        "lentil soup",
        "roast cauliflower",
        "pickled cucumbers",
        "shakshuka",
        "fresh pasta",
        "miso aubergine",
        "apple cake",
        "black bean stew",
        "focaccia",
        "fish curry",
        "potato gratin",
        "fermented cabbage",
        "tomato sauce",
        "rice pudding",
        "mushroom risotto",
        "flatbread",
        "chicken broth",
        "plum jam",
        "onion tart",
    ],
    openings: &[
        (
            "{S} on a weeknight",
            "By half past six there are two hungry people in my kitchen and forty minutes until one of them stops being polite. This is how {s} became something that happens on a Wednesday.",
        ),
        (
            "Seven attempts at {s}",
            "I cooked {s} seven times in three weeks and changed one thing each time. My family has asked me to publish, so that it may end.",
        ),
        (
            "The {s} my grandmother refused to write down",
            "She measured with her hand, and her hand was not my hand. It took two summers at her stove to learn that the secret of her {s} was patience, and a lid that does not fit.",
        ),
        (
            "{S}, with less of everything",
            "Every recipe for {s} that I own has a list as long as my arm. I began to leave things out, one each time, until somebody noticed. Nobody noticed for quite a while.",
        ),
        (
            "What goes wrong with {s}",
            "There are four ways to ruin {s}, and I can show photographs of each. Three of them happen in the first ten minutes.",
        ),
        (
            "A slow Sunday with {s}",
            "It rained, the shops were closed, and there was nothing to repair. The right day to make {s} the long way, with the radio on and the window open a hand's width.",
        ),
        (
            "{S} for twelve people",
            "Cooking for four is cooking. Cooking {s} for twelve is logistics, and I learned it the hard way, with one oven and a borrowed pot.",
        ),
        (
            "In defence of plain {s}",
            "At some point {s} became fashionable and began to wear things: seeds, foams, a drizzle. I would like to say a word for the plain kind.",
        ),
    ],
    headings: &[
        "What I changed",
        "One thing to know",
        "The second attempt",
        "A word of warning",
        "From experience",
        "The rest",
    ],
    middles: &[
        "Heat is not a number. My hob says six and means four, yours says medium and means anything. Listen instead: it should sound like light rain on a tent, not like applause.",
        "Salt early and lightly, then again at the end. Salt that had time tastes of the food, salt that had none tastes of salt.",
        "I weighed everything for the first five attempts, and I recommend it. Not because the gram matters, but because it is the only way to know what you changed.",
        "Let it rest. I know that it smells finished and that everyone is standing around. Ten minutes under a cloth do more than the last thirty in the oven.",
        "The onions want longer than any recipe admits. Printed recipes say five minutes because twenty looks bad on paper. Take the twenty, and stir with the other hand in your book.",
        "Acid is the thing that is missing when nothing seems to be missing. A spoon of vinegar or half a lemon, off the heat, and the whole plate stands up straight.",
        "Buy the cheap version of what will be cooked for an hour and the good version of what goes on top at the end. My wallet found this out before I did.",
        "A wide pan beats a deep one. What you want is evaporation, and evaporation needs a surface. Mine was a wedding present from people who do not cook, and it is the best thing in the kitchen.",
        "I tried it with the fan, without the fan, and with the door ajar on a wooden spoon, as my neighbour swears by. The spoon won by a little, and scorched by a little.",
        "It keeps for three days in the cold and improves on two of them. On the third it wants to become soup, and one should let it.",
        "Do not stir. Shake the pan if you have to do something with your hands, or peel a carrot. The crust is made by being left alone.",
        "Water is an ingredient. Ours is hard enough to stand a spoon in, and since I started to boil and cool it first, the dough has forgiven me a lot.",
        "Taste it when it is raw, where that is safe, and when it is half done and when it is too late. You will not learn it from the finished plate alone.",
    ],
    blocks: &[
        "For four people:\n\n- 400 g of the main thing, weighed after peeling\n- 2 onions, more if they are small\n- 3 tablespoons of good oil\n- 1 teaspoon of salt, to begin with\n- half a lemon\n- whatever green there is",
        "The short version:\n\n1. cut everything before the stove is on\n2. start hot, then turn down further than feels right\n3. leave it alone for a quarter of an hour\n4. taste, salt, acid, taste again\n5. rest, then serve on warm plates",
        "> You can always add. You can never take out.\n\nShe said it about pepper. I have found it to be true of most things.",
        "How long it takes, honestly:\n\n| | printed | in my kitchen |\n|---|---|---|\n| cutting | 10 min | 20 min |\n| on the heat | 25 min | 45 min |\n| washing up | – | 15 min |",
        "What can be exchanged:\n\n- butter for oil, if you turn the heat down\n- parsley for coriander, if somebody at the table thinks it tastes of soap\n- the wine for a spoon of vinegar and a cup of water",
    ],
    closings: &[
        "There was nothing left, which is the only review I trust.",
        "Tell me how yours turned out, and what you left out.",
        "Next week something with less washing up.",
        "The last portion was eaten standing, from the pan, by someone who denies it.",
        "Make it twice before you change anything. After that it is yours.",
    ],
    comments: &[
        "Made this yesterday with half the salt and twice the lemon. No complaints at the table.",
        "Does it freeze? Asking for a freezer that is already full.",
        "My oven runs hot, so I took it out ten minutes early. Perfect crust.",
        "The wooden spoon trick is real. My mother did it and never said why.",
        "I left out the onions and regret it. Listen to the post, people.",
        "Would this work in a cast-iron pot with the lid on?",
    ],
};
