//! Posts about travelling.

use super::Theme;

pub(super) const ROAD: Theme = Theme {
    authors: &[
        ("Callum Reid", "Travels by train on principle and by ferry for pleasure. Reads timetables like novels."),
        ("Noor Haddad", "Photographs doors, markets and other people's breakfasts. Never plans the second day."),
        ("Eszter Kovács", "Walks between towns that have a bus. Carries less every year."),
    ],
    subjects: &[
        "Porto",
        "the Lofoten islands",
        "Ljubljana",
        "the Outer Hebrides",
        "Trieste",
        "Bologna",
        "the Harz",
        "Tbilisi",
        "Gdańsk",
        "the Scottish Borders",
        "Lake Constance",
        "Marseille",
        "the Faroe Islands",
        "Granada",
        "Bergen",
        "the Black Forest",
        "Kraków",
        "Naples",
        "Ghent",
        "the Jura",
    ],
    openings: &[
        (
            "Three days in {s} without a plan",
            "I arrived in the evening with a paper map and a cold. What follows is not a list of sights. It is what three days in {s} look like when nothing is booked and nobody is waiting.",
        ),
        (
            "By night train to {s}",
            "The compartment had four beds, three snorers and one window that opened. Somewhere after midnight the rails changed their tune, and when I lifted the blind, {s} was eleven hours closer.",
        ),
        (
            "{S} in the rain",
            "Every photograph of {s} has a blue sky in it. I can report that it also exists in grey, and that the grey has its friends.",
        ),
        (
            "Walking to {s}",
            "There is a bus. I mention it because everyone I met mentioned it too, slowly and clearly, as one speaks to somebody who carries a tent past a bus stop on the road to {s}.",
        ),
        (
            "What I would skip in {s}",
            "Guidebooks add. After a week in {s} I would rather subtract, so here is a list of things that you can leave out with a clear conscience, and what to do with the time.",
        ),
        (
            "Eating cheaply in {s}",
            "I had set aside twelve euros a day for food, which in {s} is either plenty or absurd, depending on whether you walk the extra two streets. Walk the extra two streets.",
        ),
        (
            "{S} out of season",
            "In November the boats are under covers, and half of the cafés are run by the owner's uncle. It is the best time to see {s}, if you bring a jumper and some patience.",
        ),
        (
            "A letter from {s}",
            "I am writing this at a table that wobbles, with a coffee that cost less than the stamp. You asked what {s} is like. It is mostly stairs.",
        ),
    ],
    headings: &["The first day", "A short detour", "What I remember", "The day after", "One more thing", "Next time"],
    middles: &[
        "The market opens at six and is over by ten. Go at seven, when the crates are still being argued about, and buy whatever the oldest customer is buying.",
        "I have a rule about viewpoints: climb to the second best one. The best has a railing and a queue. The second best has a bench and a dog.",
        "The woman at the ticket office drew me a map of the connections on the back of my reservation, including the places where one should not change trains, for reasons she did not give.",
        "Nothing was open on Monday. I walked along the water until the houses stopped, and then a while longer, and it was the day I remember best.",
        "The room had a view of a wall, and the wall had a view of the sea. I was not unhappy with this. The host left figs outside the door every morning and never spoke of them.",
        "Everything that is worth carrying fits into thirty litres. The rest is worry, and it weighs about four kilograms.",
        "I asked for directions three times and got three answers, all of them kind, one of them right. It is a fair rate.",
        "The old town is small enough to get lost in twice and no more. On the third day I gave directions to someone, and they thanked me, and I hope that they arrived.",
        "At the next table an elderly couple shared one plate and one newspaper, in silence and in perfect time. I stayed for another coffee just to see how they would divide the crossword.",
        "The path is marked in yellow, then in white, and then by a man called Jure, who mows it. If you meet him, let him talk.",
        "Ferries teach you about time. You are either early or you are staying. I was staying, so I learned the names of the boats.",
        "It costs nothing to stand in a church and listen to somebody tune an organ for an hour. I would have paid.",
        "My shoes dried on the radiator for two nights, and have smelled of varnish since. They are still the right shoes.",
    ],
    blocks: &[
        "What was in the bag:\n\n- two shirts, one of them good\n- a wool jumper that has seen things\n- a pocket knife, a spoon, a cup\n- a book that I was willing to leave behind\n- plasters, and I needed them",
        "What it came to, for one person:\n\n| | euros |\n|---|---|\n| getting there and back | 118 |\n| four nights | 164 |\n| food | 71 |\n| things I did not need | 9 |",
        "> The bus comes when it comes. You are the one with the timetable.\n\nHe was right, and it came.",
        "A day that worked:\n\n1. coffee standing, like everyone else\n2. the long way round the harbour\n3. bread, cheese and a wall to sit on\n4. a museum with one room\n5. the last light from the second best viewpoint",
    ],
    closings: &[
        "I left on the early train, and half of the town seemed to be on it. I took that as a compliment.",
        "I will go back, with a smaller bag.",
        "If you go, say hello to the dog.",
        "The next letter comes from further north, if the ferry agrees.",
        "There is a stone on my window sill from there. It is not a remarkable stone.",
    ],
    comments: &[
        "We were there in March and met the same dog. He is doing well.",
        "Is the path all right with a pram, or should we take the bus?",
        "Thank you for the second best viewpoint. I had it to myself for an hour.",
        "The night train runs only at weekends now, check before you go.",
        "Your list of things to skip contains my three favourites. I liked the post all the same.",
        "Which book did you leave behind, and where? I might be passing through.",
    ],
};
