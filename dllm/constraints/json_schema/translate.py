"""A JSON Schema as grammar rules.

Lexemes are cut where tokens usually are: the quotes of a string belong to the punctuation around
it, as in `":"` and `","`. A value is therefore two symbols, its strings without their quotes and
everything else.

Properties come in the schema's order, others after them; a string whose characters are restricted
spells each in one way; of `oneOf` a branch is used as far as it keeps clear of the others; what has
no `type` is of those that its keywords speak of. Where that leaves nothing, the keyword is named;
that no value is valid is only said where it is so.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from typing import Any, Literal

from dllm import judging
from dllm.clock import NEVER, Deadline
from dllm.constraints.automaton import Dfa, concatenation, difference, intersection, union
from dllm.constraints.errors import EmptyLanguage, GrammarError, Unspelled
from dllm.constraints.grammar import Grammar, productive
from dllm.constraints.json_schema import numbers, strings
from dllm.constraints.json_schema.branches import (
    TYPES,
    deniable,
    exclusive,
    kinds,
    narrowed,
    negations,
    spelled_out,
)
from dllm.constraints.json_schema.drafts import Draft
from dllm.constraints.json_schema.keywords import check, resolve, well_formed
from dllm.constraints.json_schema.merging import (
    Schema,
    among,
    both,
    of_member,
    only_repeats,
    places,
    types,
    values_of,
)
from dllm.constraints.regex import Pattern, compile_pattern, compile_search


BLANKS = r"[ \t\n\r]*"
MAX_ITEMS = 64
"""Longest array where the number of items is counted, without an upper bound of the schema."""
MAX_CHAIN = 64
"""References in a row; whoever judges the answer follows them on its stack."""
_KEYWORDS = {
    "object": [
        "properties",
        "patternProperties",
        "additionalProperties",
        "required",
        "minProperties",
        "maxProperties",
        "propertyNames",
    ],
    "array": ("items", "prefixItems", "additionalItems", "minItems", "maxItems", "uniqueItems"),
    "string": ("minLength", "maxLength", "pattern", "format"),
    "number": ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"),
}
_COMBINING = ("allOf", "$ref", "anyOf", "oneOf")


def read_json_schema(
    schema: Any, ignore_unknown: bool = False, deadline: Deadline = NEVER
) -> Grammar:
    """The grammar of a schema's valid values, blanks allowed around punctuation.

    Raises `GrammarError` for a schema that is none, can't be expressed, or accepts nothing;
    `Undecided` at the deadline.
    """
    draft = Draft.of(schema)
    translator = _Translator(schema, draft, ignore_unknown, deadline)
    try:
        draft.check(schema, deadline)
        value = translator.value(draft.read(schema, "#", ignore_unknown), "#")
        draft.check_judge(schema)
    except RecursionError:
        raise GrammarError("the schema is nested too deeply") from None
    blanks, opening = translator.regex(BLANKS), translator.regex(f'{BLANKS}"')
    closing = translator.regex(f'"{BLANKS}')
    translator.rules += [
        ("start", (blanks, value.plain)),
        ("start", (opening, value.text, closing)),
    ]
    try:
        return Grammar.of("start", translator.rules, translator.lexemes, None, deadline)
    except EmptyLanguage:
        raise translator.nothing() from None


@dataclass(frozen=True)
class Value:
    """The symbols of a schema's values."""

    plain: str
    """Those that are no strings, with the blanks after them."""
    text: str
    """What stands between the quotes of strings."""


Body = tuple[bool, tuple[str, ...]]
"""Whether it is a string's content, and the symbols."""
After = Literal["start", "plain", "text"]
"""What stands before the next element of an object or array."""


class _Translator:
    def __init__(self, root: Any, draft: Draft, ignore_unknown: bool, deadline: Deadline) -> None:
        self.root, self.draft, self.deadline = root, draft, deadline
        self.ignore_unknown = ignore_unknown
        self._resolved: dict[str, Any] = {}
        self.rules: list[tuple[str, tuple[str, ...]]] = []
        self.lexemes: dict[str, Pattern] = {}
        self._values: dict[str, Value] = {}
        self._automata: dict[Dfa, str] = {}
        self._patterns: dict[str, Dfa] = {}
        self._empty: list[str] = []
        """Schemas that contradict themselves, by place."""
        self._open: list[Value] = []
        """Values that are being translated, each within the one before."""
        self._narrowed: list[tuple[Value, str, str]] = []
        """Values of which less is said than the schema does: the place, the keyword."""

    def value(self, schema: Any, where: str) -> Value:
        """The symbols of a schema's values; equal schemas share them, which makes recursion end."""
        self.deadline.check()
        if not isinstance(schema, Mapping | bool):
            raise GrammarError(f"{where}: {json.dumps(schema)[:40]} is no schema")
        key = json.dumps(schema, sort_keys=True)
        value = self._values.get(key)
        if value is None:
            number = len(self._values)
            value = self._values[key] = Value(f"plain{number}", f"text{number}")
            self._open.append(value)
            alternatives = self._alternatives(schema, where)
            self._open.pop()
            if not alternatives and schema is not False:
                self._empty.append(where)
            for is_text, body in alternatives:
                self.rules.append((value.text if is_text else value.plain, body))
        return value

    def nothing(self) -> GrammarError:
        """Why no text can be derived."""
        found, _ = productive(self.rules, self.lexemes)
        for value, where, keyword in self._narrowed:
            # Where something is derived, what has been left out makes no difference.
            if value.plain not in found and value.text not in found:
                return GrammarError(
                    f"{where}: no value can be expressed: {keyword} is followed in part only"
                )
        place = self._empty[0] if self._empty else "#"
        return EmptyLanguage(f"no value is valid: nothing satisfies {place}")

    def _narrow(self, where: str, keyword: str) -> None:
        self._narrowed.append((self._open[-1], where, keyword))

    def terminal(self, dfa: Dfa) -> str:
        name = self._automata.get(dfa)
        if name is None:
            name = self._automata[dfa] = f"LEXEME{len(self._automata)}"
            self.lexemes[name] = Pattern(dfa)
        return name

    def regex(self, text: str) -> str:
        return self.terminal(self.pattern(text))

    def pattern(self, text: str) -> Dfa:
        if text not in self._patterns:
            self._patterns[text] = compile_pattern(text, deadline=self.deadline).dfa
        return self._patterns[text]

    def literal(self, text: str) -> str:
        """A text that is no string, with blanks after it."""
        return self.regex(f"{re.escape(text)}{BLANKS}")

    def element(self, after: After, opening: str, key: Dfa | None, is_text: bool) -> str:
        """What ends the element before, the key, an opening quote."""
        lead = {"start": re.escape(opening), "plain": ",", "text": f'"{BLANKS},'}[after]
        parts = [self.pattern(f"{lead}{BLANKS}")]
        if key is not None:
            parts += [key, self.pattern(f"{BLANKS}:{BLANKS}")]
        if is_text:
            parts.append(strings.one_of(['"'], self.deadline))
        return self.terminal(concatenation(parts, self.deadline))

    def end(self, after: After, opening: str, closing: str) -> str:
        """The punctuation that ends an object or array."""
        lead = {"start": f"{re.escape(opening)}{BLANKS}", "plain": "", "text": f'"{BLANKS}'}[after]
        return self.regex(f"{lead}{re.escape(closing)}{BLANKS}")

    def resolve(self, reference: str, where: str) -> Any:
        if reference not in self._resolved:
            found = resolve(self.root, reference, where)
            self._resolved[reference] = self.draft.read(found, reference, self.ignore_unknown)
        return self._resolved[reference]

    # ---- what a schema accepts ----

    def _alternatives(self, schema: Schema, where: str) -> list[Body]:
        if schema is False:
            return []
        if schema is True:
            schema = {}
        assert isinstance(schema, Mapping)
        given, schema = schema, self._spelled_out(schema, where)
        # What is written out is judged as a whole.
        if "const" in given:
            return self._constants([given["const"]], given, "const", where)
        if "enum" in given:
            return self._constants(given["enum"], given, "enum", where)
        if any(word in schema for word in _COMBINING) and not (
            "allOf" in schema and only_repeats(schema) and not {*_COMBINING[1:]} & schema.keys()
        ):
            return self._combined(schema, where)
        if "not" in schema:
            return self._negated(schema, where)
        found: list[Body] = []
        for kind in self._types(schema, where):
            try:
                found.append(self._of_type(kind, schema, where))
            except EmptyLanguage:
                continue
            except Unspelled as error:
                self._narrow(where, str(error))
        return found

    def _spelled_out(self, schema: Mapping[str, Any], where: str) -> Mapping[str, Any]:
        """The schema in words that have rules here."""
        well_formed(schema, where)
        for keyword in narrowed(schema):
            self._narrow(where, keyword)
        told = spelled_out(schema)
        check(told, where, self.ignore_unknown)
        return told

    def _types(self, schema: Mapping[str, Any], where: str) -> list[str]:
        if "type" in schema:
            given = types(schema["type"])
            unknown = [kind for kind in given if kind not in TYPES]
            if unknown:
                raise GrammarError(f"{where}: {unknown[0]} is no type")
            return given
        # Without a type, a keyword says nothing about values of other types; those it was meant
        # for are the useful ones.
        meant = [kind for kind, words in _KEYWORDS.items() if any(w in schema for w in words)]
        if meant:
            self._narrow(where, "a schema without type")
        return meant or ["object", "array", "string", "number", "boolean", "null"]

    def _of_type(self, kind: str, schema: Mapping[str, Any], where: str) -> Body:
        if kind == "string":
            return True, (self._string(schema),)
        if kind == "null":
            return False, (self.literal("null"),)
        if kind == "boolean":
            return False, (self.regex(f"(true|false){BLANKS}"),)
        if kind in ("number", "integer"):
            return False, (self._number(kind, schema, where),)
        if kind == "array":
            return False, (self._array(schema, where),)
        return False, (self._object(schema, where),)

    def _combined(self, schema: Mapping[str, Any], where: str) -> list[Body]:
        rest: Schema = {key: value for key, value in schema.items() if key not in _COMBINING}
        seen: set[str] = set()
        followed: set[str] = set()
        # A stack; a reference lies below what it leads to, until all of that is worked off.
        pending: list[Any] = [schema]
        alternatives: list[tuple[str, Any]] = []
        while pending:
            self.deadline.check()
            part = pending.pop()
            if isinstance(part, str):
                followed.remove(part)
                continue
            if part is not schema:
                if isinstance(part, Mapping):
                    part = self._spelled_out(part, where)
                    own = {key: value for key, value in part.items() if key not in _COMBINING}
                else:
                    own = part
                rest = both(rest, own, where)
            if not isinstance(part, Mapping):
                continue
            pending += part.get("allOf", [])
            if "$ref" in part:
                reference = part["$ref"]
                if reference in followed:
                    raise GrammarError(f"{where}: $ref {reference} refers to itself")
                if reference not in seen:
                    seen.add(reference)
                    followed.add(reference)
                    if len(followed) > MAX_CHAIN:
                        raise GrammarError(
                            f"{where}: more than {MAX_CHAIN} references lead one to the next"
                        )
                    pending += [reference, self.resolve(reference, where)]
            alternatives += [(k, part[k]) for k in ("anyOf", "oneOf") if k in part]
        if not alternatives:
            return _either(self.value(rest, where))
        kind, branches = alternatives[0]
        others: Schema = (
            {"allOf": [{k: v} for k, v in alternatives[1:]]} if alternatives[1:] else {}
        )
        whole = [{"allOf": [s for s in (rest, branch, others) if s != {}]} for branch in branches]
        if kind == "oneOf" and len(branches) > 1:
            options = [
                [option for option in self._options(branch, where) if option is not False]
                for branch in whole
            ]
            whole = exclusive(options, where)
            if whole != [option for branch in options for option in branch]:
                self._narrow(where, "oneOf")
        found = []
        for i, branch in enumerate(whole):
            alone = isinstance(branch, Mapping) and branch.keys() == {"allOf"}
            parts = branch["allOf"] if alone else []
            single = parts[0] if len(parts) == 1 else branch
            found += _either(self.value(single, f"{where}/{kind}/{i}"))
        return found

    def _options(self, schema: Any, where: str) -> list[Any]:
        """A branch as its own alternatives, each as flat as it goes."""
        flat = self._flat(schema, where)
        if not isinstance(flat, Mapping) or "anyOf" not in flat:
            return [flat]
        rest = {key: value for key, value in flat.items() if key != "anyOf"}
        return [self._flat({"allOf": [rest, option]}, where) for option in flat["anyOf"]]

    def _flat(self, schema: Any, where: str) -> Any:
        """A branch with its references and `allOf` put together, as far as that goes."""
        merged: Schema = {}
        pending, seen = [schema], set()
        while pending:
            part = pending.pop()
            if not isinstance(part, Mapping):
                merged = both(merged, part, where)
                continue
            part = self._spelled_out(part, where)
            own = {key: value for key, value in part.items() if key not in ("$ref", "allOf")}
            merged = both(merged, own, where)
            if "$ref" in part and part["$ref"] not in seen:
                seen.add(part["$ref"])
                pending.append(self.resolve(part["$ref"], where))
            pending += part.get("allOf", [])
        return merged

    def _constants(
        self, values: list[Any], schema: Mapping[str, Any], keyword: str, where: str
    ) -> list[Body]:
        rest = {key: value for key, value in schema.items() if key != keyword}
        # The standard lets a format be a note: what is written is valid with formats and without.
        readings = [self._validity(rest, where, formats) for formats in (True, False)]
        judged = [(value, [valid(value) for valid in readings]) for value in values]
        kept = [value for value, verdicts in judged if all(verdicts)]
        if not kept and any(any(verdicts) for _, verdicts in judged):
            self._narrow(where, "format")
        texts = [json.dumps(v, ensure_ascii=False)[1:-1] for v in kept if isinstance(v, str)]
        others = [
            re.escape(json.dumps(value, ensure_ascii=False, separators=(",", ":")))
            for value in kept
            if not isinstance(value, str)
        ]
        found: list[Body] = []
        if texts:
            content = strings.one_of(dict.fromkeys(texts), self.deadline)
            found.append((True, (self.terminal(content),)))
        if others:
            found.append((False, (self.regex(f"({'|'.join(others)}){BLANKS}"),)))
        return found

    @cached_property
    def _judges(self) -> dict[bool, Any]:
        """With formats and without."""
        return {
            formats: judging.validator(
                self.root, self.draft.lenient, strings.FORMATS if formats else (), self.deadline
            )
            for formats in (True, False)
        }

    def _validity(self, schema: Schema, where: str, formats: bool = True) -> Callable[[Any], bool]:
        """Whether a value satisfies all that the schema says."""
        from jsonschema import SchemaError
        from referencing.exceptions import Unresolvable

        if isinstance(schema, Mapping):
            schema = {key: value for key, value in schema.items() if key != "$schema"}
        # What it refers to is in the document.
        judge = self._judges[formats].evolve(schema=schema)

        def valid(value: Any) -> bool:
            try:
                return judge.is_valid(value)
            except SchemaError as error:
                raise GrammarError(f"{where}: {error.message}") from None
            except Unresolvable as error:
                raise GrammarError(f"{where}: a reference can't be followed: {error}") from None

        return valid

    def _negated(self, schema: Mapping[str, Any], where: str) -> list[Body]:
        refused = schema["not"]
        rest = {key: value for key, value in schema.items() if key != "not"}
        if refused in (True, {}):
            return []
        found: list[Body] = []
        if isinstance(refused, Mapping):
            well_formed(refused, f"{where}/not")
        options = negations(refused)
        if not deniable(refused):
            raise GrammarError(f"{where}: this use of not is not supported")
        self._narrow(where, "not")
        if isinstance(refused, Mapping):
            if "const" in refused or "enum" in refused:
                values = [refused["const"]] if "const" in refused else refused["enum"]
                found += self._other(rest, values, where)
            given = self._types(rest, where)
            if "pattern" in refused and "string" in given:
                with suppress(EmptyLanguage, Unspelled):
                    content = compile_search(refused["pattern"], strings.characters, self.deadline)
                    found.append((True, (self._string(rest, content),)))
        for option in options:
            found += self._alternatives(both(rest, option, where), where)
        return found

    def _other(self, rest: Mapping[str, Any], values: list[Any], where: str) -> list[Body]:
        """Values that are none of those: other strings and integers, and what is of another
        type."""
        taken = {kind for value in values for kind in kinds(value)}
        names = [value for value in values if isinstance(value, str)]
        found: list[Body] = []
        for kind in self._types(rest, where):
            with suppress(EmptyLanguage, Unspelled):
                if kind == "string":
                    refused = self._spelled(names) if names else None
                    found.append((True, (self._string(rest, refused),)))
                elif kind not in taken:
                    found.append(self._of_type(kind, rest, where))
                elif kind in ("integer", "number"):
                    given = {v for v in values if "number" in kinds(v) and v == int(v)}
                    spelled = "|".join("-?0" if v == 0 else f"{int(v)}" for v in given)
                    content = self.lexemes[self._number("integer", rest, where)].dfa
                    if spelled:
                        refused = self.pattern(f"({spelled}){BLANKS}")
                        content = difference(content, refused, self.deadline)
                    found.append((False, (self.terminal(content),)))
        return found

    # ---- values of one type ----

    def _string(self, schema: Mapping[str, Any], refused: Dfa | None = None) -> str:
        patterns, formats = values_of(schema, "pattern"), values_of(schema, "format")
        least, most = schema.get("minLength", 0), schema.get("maxLength")
        if not (
            patterns
            or any(map(strings.FORMATS.get, formats))
            or least
            or most is not None
            or refused is not None
        ):
            return self.regex(strings.ANY)
        content = strings.texts(patterns, formats, least, most, self.deadline)
        if refused is not None:
            content = difference(content, refused, self.deadline)
        return self.terminal(content)

    def _number(self, kind: str, schema: Mapping[str, Any], where: str) -> str:
        low, high = _fraction(schema.get("minimum")), _fraction(schema.get("maximum"))
        above, below = map(_fraction, map(schema.get, ("exclusiveMinimum", "exclusiveMaximum")))
        open_low = above is not None and (low is None or above >= low)
        open_high = below is not None and (high is None or below <= high)
        bounds = above if open_low else low, below if open_high else high, open_low, open_high
        given = values_of(schema, "multipleOf")
        if given:
            steps = [Fraction(str(step)) for step in given]
            if min(steps) <= 0:
                raise GrammarError(f"{where}: multipleOf={min(given)} must be > 0")
            decimals = kind == "number"
            found = numbers.multiples_between(steps, *bounds, decimals, self.deadline)
            return self.terminal(concatenation([found, self.pattern(BLANKS)], self.deadline))
        build = numbers.whole if kind == "integer" else numbers.numbers
        return self.regex(f"({build(*bounds)}){BLANKS}")

    def _array(self, schema: Mapping[str, Any], where: str) -> str:
        items, rest = places(schema)
        least, most = schema.get("minItems", 0), schema.get("maxItems")
        if schema.get("uniqueItems"):
            if least > 1:
                items = self._distinct(items, rest, least, where)
            # One item can't be there twice.
            most = max(least, 1) if most is None else min(most, max(least, 1))
        if rest is False:
            most = len(items) if most is None else min(most, len(items))
        if most is not None:
            most = min(most, max(least, MAX_ITEMS))
            if least > most:
                raise EmptyLanguage(f"{where}: no array has {least} items")
        values = [self.value(item, f"{where}/items/{i}") for i, item in enumerate(items)]
        other = None if rest is False else self.value(rest, f"{where}/items")
        name = f"array{len(self.rules)}"
        last = max(least, len(values), 1) if most is None else most
        self.rules.append((f"{name}.0.start", ()))
        for count in range(last + 1):
            value = values[count] if count < len(values) else other
            for after in _afters(count):
                here = f"{name}.{count}.{after}"
                if count >= least:
                    self.rules.append((name, (here, self.end(after, "[", "]"))))
                if value is not None and count != most:
                    self._then(here, f"{name}.{min(count + 1, last)}", after, "[", None, value)
        return name

    def _distinct(self, items: list[Schema], rest: Schema, count: int, where: str) -> list[Schema]:
        """The schemas of so many items that every place has values of its own."""
        if items or not isinstance(rest, Mapping) or "enum" not in rest:
            raise GrammarError(f"{where}: uniqueItems with minItems={count} is not supported")
        valid = self._validity(rest, where)
        values: list[Any] = []
        for value in rest["enum"]:
            if valid(value) and not among(value, values):
                values.append(value)
        if len(values) < count:
            raise EmptyLanguage(f"{where}: no {count} items are different")
        return [{"enum": values[at::count]} for at in range(count)]

    def _then(
        self, here: str, there: str, after: After, opening: str, key: Dfa | None, value: Value
    ) -> None:
        """One element more: left-recursive, so that nothing stays open behind it."""
        for kind, symbol in (("plain", value.plain), ("text", value.text)):
            lead = self.element(after, opening, key, kind == "text")
            self.rules.append((f"{there}.{kind}", (here, lead, symbol)))

    def _object(self, schema: Mapping[str, Any], where: str) -> str:
        required = schema.get("required", [])
        named = list(dict.fromkeys([*schema.get("properties", {}), *required]))
        names = schema.get("propertyNames", True)
        allowed = self._validity(names, f"{where}/propertyNames")
        members = []
        for member in named:
            held = of_member(schema, member) if names is True or allowed(member) else [False]
            value = self.value(
                held[0] if len(held) == 1 else {"allOf": held}, f"{where}/properties/{member}"
            )
            spelled = json.dumps(member, ensure_ascii=False)
            members.append((strings.one_of([spelled], self.deadline), value, member in required))
        extras = self._extras(schema, named, where)
        least = schema.get("minProperties", 0)
        if least > schema.get("maxProperties", least):
            raise EmptyLanguage(f"{where}: no object has {least} members")
        others = "patternProperties" in schema or schema.get("additionalProperties") is not False
        if others and (least > 1 or (least == 1 and not extras)):
            self._narrow(where, "minProperties")
        return self._members(members, extras, schema, where)

    def _extras(
        self, schema: Mapping[str, Any], named: list[str], where: str
    ) -> list[tuple[Dfa, Value]]:
        """Keys, quoted, and values of members that `properties` does not name."""
        sources: list[tuple[str | None, Schema, str]] = [
            (pattern, value, f"{where}/patternProperties/{i}")
            for i, (pattern, value) in enumerate(schema.get("patternProperties", {}).items())
        ]
        matching = {
            pattern: self._matching(pattern) for pattern, _, _ in sources if pattern is not None
        }
        if schema.get("additionalProperties") is not False:
            value = schema.get("additionalProperties", True)
            sources.append((None, value, f"{where}/additionalProperties"))
        found = []
        for wanted, value, place in sources:
            if wanted is not None and matching[wanted] is None:
                continue
            try:
                keys = self._names(schema.get("propertyNames", True), f"{where}/propertyNames")
                if named:
                    keys = difference(keys, self._spelled(named), self.deadline)
                for pattern, texts in matching.items():
                    if texts is None:
                        continue
                    if pattern == wanted:
                        keys = intersection(keys, texts, self.deadline)
                    else:  # keys that match several patterns are left out
                        keys = difference(keys, texts, self.deadline)
            except EmptyLanguage:
                continue
            quoted = strings.quoted(keys, self.deadline)
            found.append((quoted, self.value(value, place)))
        return found

    def _matching(self, pattern: str) -> Dfa | None:
        """Names of members, as they are spelled here, that match a pattern."""
        with suppress(EmptyLanguage, Unspelled):
            return strings.texts([pattern], (), 0, None, self.deadline)
        return None

    def _names(self, schema: Schema, where: str) -> Dfa:
        """Names of members that `propertyNames` allows, each spelled in one way."""
        if schema is True:
            return strings.texts((), (), 0, None, self.deadline)
        # Without a pattern, a text may be spelled in many ways.
        anything: Schema = {"type": "string", "pattern": ""}
        value = self.value({"allOf": [schema, anything]}, where)
        contents, waiting, seen = [], [value.text], set()
        while waiting:
            symbol = waiting.pop()
            if symbol in self.lexemes:
                contents.append(self.lexemes[symbol].dfa)
            elif symbol not in seen:
                seen.add(symbol)
                waiting += [body[0] for left, body in self.rules if left == symbol]
        if not contents:
            raise EmptyLanguage(f"{where}: no name is allowed")
        known = strings.texts([""], (), 0, None, self.deadline)
        return intersection(union(contents, self.deadline), known, self.deadline)

    def _spelled(self, texts: Sequence[str]) -> Dfa:
        spelled = [json.dumps(text, ensure_ascii=False)[1:-1] for text in texts]
        return strings.one_of(spelled, self.deadline)

    def _members(
        self,
        members: list[tuple[Dfa, Value, bool]],
        extras: list[tuple[Dfa, Value]],
        schema: Mapping[str, Any],
        where: str,
    ) -> str:
        """The symbol of an object: members in order, then others.

        A state says how many of `members` are behind, how many members there are, as far as that
        matters, and what stands before.
        """
        least, most = schema.get("minProperties", 0), schema.get("maxProperties")
        if max(least, most or 0) > MAX_ITEMS:
            raise GrammarError(f"{where}: minProperties or maxProperties above {MAX_ITEMS}")
        limit = max(least, 1) if most is None else most
        name = f"object{len(self.rules)}"
        self.rules.append((f"{name}.0.0.start", ()))
        for at, (key, value, needed) in enumerate(members):
            for count in range(min(at, limit) + 1):
                for after in _afters(count):
                    here = f"{name}.{at}.{count}"
                    if count != most:
                        more = f"{name}.{at + 1}.{min(count + 1, limit)}"
                        self._then(f"{here}.{after}", more, after, "{", key, value)
                    if not needed:
                        skipped = f"{name}.{at + 1}.{count}.{after}"
                        self.rules.append((skipped, (f"{here}.{after}",)))
        for count in range(limit + 1):
            for after in _afters(count):
                here = f"{name}.{len(members)}.{count}"
                if count >= least:
                    self.rules.append((name, (f"{here}.{after}", self.end(after, "{", "}"))))
                # Other members may repeat a name: only one of them is sure to count.
                if count != most and count + 1 >= least:
                    more = f"{name}.{len(members)}.{min(count + 1, limit)}"
                    for key, value in extras:
                        self._then(f"{here}.{after}", more, after, "{", key, value)
        return name


def _afters(count: int) -> tuple[After, ...]:
    """What can stand before the element after so many others."""
    return ("plain", "text") if count else ("start",)


def _either(value: Value) -> list[Body]:
    return [(False, (value.plain,)), (True, (value.text,))]


def _fraction(value: Any) -> Fraction | None:
    return None if value is None else Fraction(str(value))
