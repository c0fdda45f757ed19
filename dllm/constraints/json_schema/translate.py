"""A JSON Schema as grammar rules.

Properties come in the schema's order, others after them; a string whose characters are restricted
spells each in one way; of `oneOf` a branch is used as far as it keeps clear of the others.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from typing import Any

from dllm.constraints.automaton import Dfa, difference, intersection
from dllm.constraints.clock import NEVER, Deadline
from dllm.constraints.errors import EmptyLanguage, GrammarError
from dllm.constraints.grammar import Grammar
from dllm.constraints.json_schema import numbers, strings
from dllm.constraints.json_schema.branches import exclusive
from dllm.constraints.json_schema.keywords import check, resolve
from dllm.constraints.json_schema.merging import Schema, both, of_member, types
from dllm.constraints.regex import Pattern, compile_pattern


TYPES = ("object", "array", "string", "number", "integer", "boolean", "null")
BLANKS = r"[ \t\n\r]+"
MAX_ITEMS = 256
"""Longest array where the number of items is counted, without an upper bound of the schema."""
_KEYWORDS = {
    "object": ("properties", "patternProperties", "additionalProperties", "required")
    + ("minProperties", "maxProperties", "propertyNames", "dependencies", "dependentRequired"),
    "array": ("items", "prefixItems", "additionalItems", "minItems", "maxItems", "uniqueItems"),
    "string": ("minLength", "maxLength", "pattern", "format"),
    "number": ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"),
}
_COMBINING = ("$ref", "allOf", "anyOf", "oneOf")


def read_json_schema(
    schema: Any, ignore_unknown: bool = False, deadline: Deadline = NEVER
) -> Grammar:
    """The grammar of a schema's valid values, blanks allowed between lexemes.

    Raises `GrammarError` for a schema that is none, can't be expressed, or accepts nothing;
    `Undecided` at the deadline.
    """
    translator = _Translator(schema, ignore_unknown, deadline)
    try:
        start = translator.value(schema, "#")
    except RecursionError:
        raise GrammarError("the schema is nested too deeply") from None
    blanks = compile_pattern(BLANKS).dfa
    return Grammar.of(start, translator.rules, translator.lexemes, blanks, deadline)


class _Translator:
    def __init__(self, root: Any, ignore_unknown: bool, deadline: Deadline) -> None:
        self.root, self.ignore_unknown, self.deadline = root, ignore_unknown, deadline
        self.rules: list[tuple[str, tuple[str, ...]]] = []
        self.lexemes: dict[str, Pattern] = {}
        self._symbols: dict[str, str] = {}
        self._automata: dict[Dfa, str] = {}

    def value(self, schema: Any, where: str) -> str:
        """The symbol of a schema's values; equal schemas share one, which makes recursion end."""
        self.deadline.check()
        if not isinstance(schema, Mapping | bool):
            raise GrammarError(f"{where}: {json.dumps(schema)[:40]} is no schema")
        key = json.dumps(schema, sort_keys=True)
        symbol = self._symbols.get(key)
        if symbol is None:
            symbol = self._symbols[key] = f"value{len(self._symbols)}"
            for body in self._alternatives(schema, where):
                self.rules.append((symbol, body))
        return symbol

    def terminal(self, dfa: Dfa) -> str:
        name = self._automata.get(dfa)
        if name is None:
            name = self._automata[dfa] = f"LEXEME{len(self._automata)}"
            self.lexemes[name] = Pattern(dfa)
        return name

    def regex(self, text: str) -> str:
        return self.terminal(compile_pattern(text, deadline=self.deadline).dfa)

    def text(self, text: str) -> str:
        return self.terminal(strings.one_of([text], self.deadline))

    def list_of(self, least: int, most: int | None, items: Sequence[str], rest: str | None) -> str:
        """The symbol of `least` to `most` values and commas: first `items`, then `rest`."""
        comma = self.text(",")
        name = f"list{len(self.rules)}"
        counted = least if most is None else most
        counted = max(counted, len(items) if most is None else 0)
        for count in range(counted + 1):
            here, following = f"{name}.{count}", f"{name}.{count + 1}"
            if count >= least:
                self.rules.append((here, ()))
            item = items[count] if count < len(items) else rest
            if item is None or count == counted:
                break
            self.rules.append((here, (*((comma,) if count else ()), item, following)))
        if most is None and rest is not None:
            # Left-recursive: the number of open constituents does not grow with the list.
            tail = f"{name}.tail"
            self.rules.append((tail, ()))
            self.rules.append((tail, (tail, comma, rest)))
            body = (tail,) if counted else (rest, tail)
            self.rules.append((f"{name}.{counted}", body))
        return f"{name}.0"

    # ---- what a schema accepts ----

    def _alternatives(self, schema: Schema, where: str) -> list[tuple[str, ...]]:
        if schema is False:
            return []
        if schema is True:
            schema = {}
        assert isinstance(schema, Mapping)
        check(schema, where, self.ignore_unknown)
        if any(keyword in schema for keyword in _COMBINING):
            return self._combined(schema, where)
        if "const" in schema:
            return self._constants([schema["const"]], schema, where)
        if "enum" in schema:
            return self._constants(schema["enum"], schema, where)
        if "not" in schema:
            return self._negated(schema, where)
        found: list[tuple[str, ...]] = []
        for kind in self._types(schema, where):
            try:
                found.append(self._of_type(kind, schema, where))
            except EmptyLanguage:
                continue
        return found

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
        return meant or ["object", "array", "string", "number", "boolean", "null"]

    def _of_type(self, kind: str, schema: Mapping[str, Any], where: str) -> tuple[str, ...]:
        if kind == "null":
            return (self.text("null"),)
        if kind == "boolean":
            return (self.terminal(strings.one_of(["true", "false"], self.deadline)),)
        if kind == "string":
            return (self._string(schema),)
        if kind in ("number", "integer"):
            return (self._number(kind, schema, where),)
        if kind == "array":
            return self._array(schema, where)
        return self._object(schema, where)

    def _combined(self, schema: Mapping[str, Any], where: str) -> list[tuple[str, ...]]:
        rest: Schema = {key: value for key, value in schema.items() if key not in _COMBINING}
        seen = []
        pending = [schema]
        alternatives: list[tuple[str, Any]] = []
        while pending:
            part = pending.pop()
            if part is not schema:
                if isinstance(part, Mapping):
                    check(part, where, self.ignore_unknown)
                    own = {key: value for key, value in part.items() if key not in _COMBINING}
                else:
                    own = part
                rest = both(rest, own, where)
            if not isinstance(part, Mapping):
                continue
            if "$ref" in part:
                reference = part["$ref"]
                if reference in seen:
                    raise GrammarError(f"{where}: $ref {reference} refers to itself")
                seen.append(reference)
                pending.append(resolve(self.root, reference, where))
            pending += part.get("allOf", [])
            alternatives += [(k, part[k]) for k in ("anyOf", "oneOf") if k in part]
        if not alternatives:
            return [(self.value(rest, where),)]
        kind, branches = alternatives[0]
        if not isinstance(branches, list) or not branches:
            raise GrammarError(f"{where}: {kind} needs a list of schemas")
        others: Schema = (
            {"allOf": [{k: v} for k, v in alternatives[1:]]} if alternatives[1:] else {}
        )
        whole = [{"allOf": [s for s in (rest, branch, others) if s != {}]} for branch in branches]
        if kind == "oneOf" and len(branches) > 1:
            flat = [self._flat(branch, where) for branch in whole]
            whole = exclusive(flat, where)
        return [
            (
                self.value(
                    branch
                    if "allOf" not in branch or len(branch["allOf"]) > 1
                    else branch["allOf"][0],
                    f"{where}/{kind}/{i}",
                ),
            )
            for i, branch in enumerate(whole)
        ]

    def _flat(self, schema: Any, where: str) -> Any:
        """A branch with its references and `allOf` put together, as far as that goes."""
        merged: Schema = {}
        pending, seen = [schema], []
        while pending:
            part = pending.pop()
            if not isinstance(part, Mapping):
                merged = both(merged, part, where)
                continue
            own = {key: value for key, value in part.items() if key not in ("$ref", "allOf")}
            merged = both(merged, own, where)
            if "$ref" in part and part["$ref"] not in seen:
                seen.append(part["$ref"])
                pending.append(resolve(self.root, part["$ref"], where))
            pending += part.get("allOf", [])
        return merged

    def _constants(
        self, values: Any, schema: Mapping[str, Any], where: str
    ) -> list[tuple[str, ...]]:
        if not isinstance(values, list):
            raise GrammarError(f"{where}: enum needs a list of values")
        valid = self._validity(schema, where)
        spelled = [
            json.dumps(value, ensure_ascii=False, separators=(",", ":"))
            for value in values
            if valid(value)
        ]
        if not spelled:
            return []
        return [(self.terminal(strings.one_of(dict.fromkeys(spelled), self.deadline)),)]

    def _validity(self, schema: Mapping[str, Any], where: str) -> Callable[[Any], bool]:
        """Whether a value satisfies all that the schema says."""
        if not schema.keys() - {"const", "enum", "type"} and "type" not in schema:
            return lambda value: True
        from jsonschema.exceptions import SchemaError
        from jsonschema.validators import validator_for

        validator = validator_for(self.root if isinstance(self.root, Mapping) else {})
        known = {key: value for key, value in schema.items() if key != "$ref"}
        try:
            return validator(known).is_valid
        except SchemaError as error:
            raise GrammarError(f"{where}: {error.message}") from None

    def _negated(self, schema: Mapping[str, Any], where: str) -> list[tuple[str, ...]]:
        refused = schema["not"]
        rest = {key: value for key, value in schema.items() if key != "not"}
        if isinstance(refused, Mapping):
            if refused.keys() == {"required"} and len(refused["required"]) == 1:
                name = refused["required"][0]
                return self._alternatives(both(rest, {"properties": {name: False}}, where), where)
            if refused.keys() == {"type"}:
                kept = [k for k in self._types(rest, where) if k not in types(refused["type"])]
                return self._alternatives({**rest, "type": kept}, where)
            if refused.keys() == {"enum"} and self._types(rest, where) == ["string"]:
                return [(self._string(rest, [v for v in refused["enum"] if isinstance(v, str)]),)]
        raise GrammarError(f"{where}: this use of not is not supported")

    # ---- values of one type ----

    def _string(self, schema: Mapping[str, Any], refused: Sequence[str] = ()) -> str:
        patterns = [schema["pattern"]] if "pattern" in schema else []
        least, most = schema.get("minLength", 0), schema.get("maxLength")
        format_ = schema.get("format")
        if not (patterns or format_ in strings.FORMATS or least or most is not None or refused):
            return self.regex(strings.ANY)
        content = strings.texts(patterns, format_, least, most, self.deadline)
        if refused:
            names = [json.dumps(name, ensure_ascii=False)[1:-1] for name in refused]
            content = difference(content, strings.one_of(names, self.deadline), self.deadline)
        return self.terminal(strings.quoted(content, b"", self.deadline))

    def _number(self, kind: str, schema: Mapping[str, Any], where: str) -> str:
        low, high = _fraction(schema.get("minimum")), _fraction(schema.get("maximum"))
        open_low = open_high = False
        for keyword, is_low in (("exclusiveMinimum", True), ("exclusiveMaximum", False)):
            bound = schema.get(keyword)
            if bound is True:  # draft 4: the other keyword's bound is open
                open_low, open_high = open_low or is_low, open_high or not is_low
            elif bound is not None and bound is not False:
                bound = _fraction(bound)
                assert bound is not None
                if is_low and (low is None or bound >= low):
                    low, open_low = bound, True
                if not is_low and (high is None or bound <= high):
                    high, open_high = bound, True
        if "multipleOf" in schema:
            return self._multiples(schema, low, high, open_low, open_high, where)
        build = numbers.whole if kind == "integer" else numbers.numbers
        return self.regex(build(low, high, open_low, open_high))

    def _multiples(
        self,
        schema: Mapping[str, Any],
        low: Fraction | None,
        high: Fraction | None,
        open_low: bool,
        open_high: bool,
        where: str,
    ) -> str:
        step = _fraction(schema["multipleOf"])
        if step is None or step <= 0 or step.denominator != 1 or step > 1000:
            raise GrammarError(f"{where}: multipleOf={schema['multipleOf']} is not supported")
        whole = compile_pattern(numbers.whole(low, high, open_low, open_high)).dfa
        remainders = numbers.multiples(int(step))
        return self.terminal(intersection(whole, remainders, self.deadline))

    def _array(self, schema: Mapping[str, Any], where: str) -> tuple[str, ...]:
        items, rest = schema.get("prefixItems", []), schema.get("items", True)
        if isinstance(rest, list):
            items, rest = rest, schema.get("additionalItems", True)
        least, most = schema.get("minItems", 0), schema.get("maxItems")
        if schema.get("uniqueItems"):
            if least > 1:
                raise GrammarError(f"{where}: uniqueItems with minItems={least} is not supported")
            # One item can't be there twice.
            most = 1 if most is None else min(most, 1)
        if rest is False:
            most = len(items) if most is None else min(most, len(items))
        if most is not None:
            most = min(most, max(least, MAX_ITEMS))
            if least > most:
                raise EmptyLanguage(f"{where}: no array has {least} items")
        symbols = [self.value(item, f"{where}/items/{i}") for i, item in enumerate(items)]
        other = None if rest is False else self.value(rest, f"{where}/items")
        return (
            self.text("["),
            self.list_of(least, most, symbols, other),
            self.text("]"),
        )

    def _object(self, schema: Mapping[str, Any], where: str) -> tuple[str, ...]:
        named = dict(schema.get("properties", {}))
        required = self._required(schema, where)
        for name in required:
            named.setdefault(name, None)
        members: list[tuple[str, bool]] = []
        """Symbol of key and value; whether it has to be there."""
        for name in named:
            subschemas = of_member(schema, name)
            subschema = subschemas[0] if len(subschemas) == 1 else {"allOf": subschemas}
            value = self.value(subschema, f"{where}/properties/{name}")
            key = json.dumps(name, ensure_ascii=False)
            symbol = f"member{len(self.rules)}"
            self.rules.append((symbol, (self._key(strings.one_of([key], self.deadline)), value)))
            members.append((symbol, name in required))
        extra = self._extra(schema, list(named), where)
        body = self._members(members, extra, schema, where)
        return self.text("{"), body, self.text("}")

    def _required(self, schema: Mapping[str, Any], where: str) -> list[str]:
        required = schema.get("required", [])
        if not isinstance(required, list):  # draft 3 writes it into the property
            raise GrammarError(f"{where}: required needs a list of names")
        found = list(dict.fromkeys(required))
        dependent = {**schema.get("dependencies", {}), **schema.get("dependentRequired", {})}
        for names in dependent.values():
            if not isinstance(names, list):
                raise GrammarError(f"{where}: dependencies on a schema are not supported")
            found += [name for name in names if name not in found]
        return found

    def _key(self, quoted_: Dfa) -> str:
        """A key together with its colon."""
        from dllm.constraints.automaton import Nfa, determinise

        nfa = Nfa()
        start, blank, end = nfa.state(), nfa.state(), nfa.state()
        for accepted in nfa.embed(quoted_, start):
            nfa.empty[accepted].append(blank)
        for byte in b" \t\n\r":
            nfa.chain(blank, blank, [(byte, byte)])
        nfa.chain(blank, end, [(0x3A, 0x3A)])
        return self.terminal(determinise(nfa, start, {end}, self.deadline))

    def _extra(self, schema: Mapping[str, Any], named: list[str], where: str) -> str | None:
        """The symbol of a member that `properties` does not name."""
        patterns = list(schema.get("patternProperties", {}).items())
        rest = schema.get("additionalProperties", True)
        symbol = f"extra{len(self.rules)}"
        names = schema.get("propertyNames", True)
        if names is False:
            return None
        if isinstance(names, Mapping):
            check(names, f"{where}/propertyNames", self.ignore_unknown)
        limits = names if isinstance(names, Mapping) else {}
        content = strings.texts(
            [limits["pattern"]] if "pattern" in limits else [],
            limits.get("format"),
            limits.get("minLength", 0),
            limits.get("maxLength"),
            self.deadline,
        )
        if "enum" in limits:
            allowed = [json.dumps(name, ensure_ascii=False)[1:-1] for name in limits["enum"]]
            content = intersection(content, strings.one_of(allowed, self.deadline), self.deadline)
        found = False
        taken = [json.dumps(name, ensure_ascii=False)[1:-1] for name in named]
        try:
            if taken:
                taken_ = strings.one_of(taken, self.deadline)
                content = difference(content, taken_, self.deadline)
        except EmptyLanguage:
            return None
        matching = [
            strings.texts([pattern], None, 0, None, self.deadline) for pattern, _ in patterns
        ]
        for i, (_, subschema) in enumerate(patterns):
            try:
                # Keys that match another pattern as well are left out.
                keys = intersection(content, matching[i], self.deadline)
                for other in matching[:i] + matching[i + 1 :]:
                    keys = difference(keys, other, self.deadline)
            except EmptyLanguage:
                continue
            value = self.value(subschema, f"{where}/patternProperties/{i}")
            key = self._key(strings.quoted(keys, b"", self.deadline))
            self.rules.append((symbol, (key, value)))
            found = True
        if rest is not False:
            try:
                keys = content
                for other in matching:
                    keys = difference(keys, other, self.deadline)
            except EmptyLanguage:
                return symbol if found else None
            value = self.value(rest, f"{where}/additionalProperties")
            key = self._key(strings.quoted(keys, b"", self.deadline))
            self.rules.append((symbol, (key, value)))
            found = True
        return symbol if found else None

    def _members(
        self,
        members: list[tuple[str, bool]],
        extra: str | None,
        schema: Mapping[str, Any],
        where: str,
    ) -> str:
        """The symbol of everything between the braces: members in order, then others.

        `count` says how many came before, as far as that matters.
        """
        least, most = schema.get("minProperties", 0), schema.get("maxProperties")
        most_matters = most is not None and (extra is not None or most < len(members))
        limit = max(least, most if most_matters else 0, 1)
        if limit > MAX_ITEMS:
            raise GrammarError(f"{where}: minProperties or maxProperties above {MAX_ITEMS}")
        comma = self.text(",")
        name = f"members{len(self.rules)}"
        end = len(members)

        def state(at: int, count: int) -> str:
            return f"{name}.{at}.{min(count, limit)}"

        full = limit if most_matters else None
        for at, (member, needed) in enumerate(members):
            for count in range(min(at, limit) + 1):
                here = state(at, count)
                if count != full:
                    begin = (comma,) if count else ()
                    self.rules.append((here, (*begin, member, state(at + 1, count + 1))))
                if not needed:
                    self.rules.append((here, (state(at + 1, count),)))
        tail = f"{name}.tail"
        for count in range(min(end, limit) + 1):
            here = state(end, count)
            if count >= least:
                self.rules.append((here, ()))
            if extra is None or count == full:
                continue
            begin = (comma,) if count else ()
            if full is not None:
                self.rules += [
                    (here, (*begin, f"{name}.more.{count + 1}")),
                ]
            elif count + 1 >= least:
                # Members without a name of their own may repeat it: only one is sure to count.
                self.rules.append((here, (*begin, extra, tail)))
        if extra is not None and full is not None:
            for count in range(1, full + 1):
                here = f"{name}.more.{count}"
                if count >= least:
                    self.rules.append((here, (extra,)))
                if count < full:
                    self.rules.append((here, (extra, comma, f"{name}.more.{count + 1}")))
        if extra is not None:
            self.rules.append((tail, ()))
            self.rules.append((tail, (tail, comma, extra)))
        return state(0, 0)


def _fraction(value: Any) -> Fraction | None:
    return None if value is None else Fraction(str(value))
