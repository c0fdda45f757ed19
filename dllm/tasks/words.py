"""Word pools of the generated tasks. The shipped tokenizer holds every name as one token."""

from __future__ import annotations


# fmt: off
NAMES: tuple[str, ...] = (
    "Abe", "Ada", "Adam", "Alan", "Alba", "Ali", "Amy", "Ana", "Andy", "Anna", "Arlo", "Asa",
    "Ava", "Axel", "Bea", "Beau", "Ben", "Beth", "Bob", "Boris", "Brad", "Bram", "Carl", "Cem",
    "Chad", "Cleo", "Cole", "Cora", "Dale", "Dan", "Dana", "Dean", "Dina", "Dora", "Drew", "Earl",
    "Eli", "Ella", "Elsa", "Emil", "Emma", "Enzo", "Eric", "Erin", "Eva", "Evan", "Ezra", "Finn",
    "Fred", "Gail", "Gary", "Gina", "Glen", "Greg", "Gus", "Hana", "Hank", "Hugo", "Ian", "Ida",
    "Ines", "Ira", "Iris", "Ivan", "Ivy", "Jack", "Jade", "Jake", "Jane", "Jean", "Jill", "Joan",
    "Joe", "John", "Jose", "Juan", "June", "Kai", "Kate", "Kim", "Kurt", "Lana", "Lars", "Lena",
    "Leo", "Levi", "Lily", "Lisa", "Lola", "Luca", "Lucy", "Luke", "Luna", "Mara", "Mark", "Mary",
    "Max", "Mia", "Milo", "Mona", "Nell", "Nina", "Noah", "Nora", "Omar", "Otto", "Owen", "Pam",
    "Paul", "Rita", "Rob", "Rosa", "Ruby", "Ruth", "Sam", "Sara", "Sean", "Tara", "Ted", "Theo",
    "Tim", "Tina", "Tom", "Uma", "Vera", "Will", "Yara", "Zoe",
)
# fmt: on

CITIES: tuple[str, ...] = (
    "Rome",
    "Oslo",
    "Lima",
    "Cairo",
    "Paris",
    "Tokyo",
    "Delhi",
    "Berlin",
    "Madrid",
    "Boston",
    "Dublin",
    "Prague",
)

JOBS: tuple[str, ...] = (
    "nurse",
    "pilot",
    "baker",
    "judge",
    "miner",
    "farmer",
    "lawyer",
    "singer",
    "tailor",
    "teacher",
)

PETS: tuple[str, ...] = ("cat", "dog", "fox", "hen", "pig", "rat", "bird", "horse")

LAST_NAMES: tuple[str, ...] = (
    "Ash",
    "Bell",
    "Brook",
    "Clay",
    "Cole",
    "Dale",
    "East",
    "Fern",
    "Ford",
    "Glen",
    "Hall",
    "Hill",
    "Holt",
    "Kerr",
    "Lake",
    "Lane",
    "Marsh",
    "Moor",
    "North",
    "Oak",
    "Park",
    "Pond",
    "Reed",
    "Ridge",
    "Rose",
    "Shore",
    "Stone",
    "Vale",
    "West",
    "Wood",
)
