"""Drafts of the standard: a schema is read, and an answer judged, by the one that `$schema` names,
the newest else."""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from dllm import judging
from dllm.clock import NEVER, Deadline
from dllm.constraints.errors import GrammarError
from dllm.constraints.json_schema.branches import TYPES
from dllm.constraints.json_schema.keywords import COUNTS, STANDARD, UNDERSTOOD, is_count, malformed


_ONE = (
    "additionalItems",
    "additionalProperties",
    "contains",
    "else",
    "if",
    "items",
    "not",
    "propertyNames",
    "then",
)
_MANY = ("allOf", "anyOf", "items", "oneOf", "prefixItems")
_NAMED = ("dependencies", "dependentSchemas", "patternProperties", "properties")
"""Where schemas stand within a schema: as a value, in a list, under names."""
_WITH = {
    "then": "if",
    "else": "if",
    "minContains": "unevaluatedItems",
    "maxContains": "unevaluatedItems",
}
"""Keywords that jsonschema has no entry for, and one that came with the same draft."""
_BOUNDS = (("exclusiveMinimum", "minimum"), ("exclusiveMaximum", "maximum"))
_EVERYWHERE = frozenset(["additionalItems", "dependencies", "exclusiveMaximum", "exclusiveMinimum"])
"""Keywords of old drafts that mean the same, or nothing, in new ones."""


def parsed(text: str) -> Any:
    """A schema's text as a value.

    Raises `GrammarError` for what is no JSON, or JSON that readers take in different ways.
    """
    try:
        schema = json.loads(text, object_pairs_hook=_unique, parse_constant=_no_number)
        json.dumps(schema, ensure_ascii=False, allow_nan=False).encode()
    except GrammarError:
        raise
    except RecursionError:
        raise GrammarError("the schema is nested too deeply") from None
    except UnicodeEncodeError:
        raise GrammarError("the schema has half a surrogate pair, which is no character") from None
    except json.JSONDecodeError as error:
        raise GrammarError(f"the schema is not valid JSON: {error}") from None
    except ValueError:  # 1e400, or more digits than Python reads
        raise GrammarError("the schema has a number that is too large") from None
    return schema


def _unique(members: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in members:
        if name in found:
            raise GrammarError(f"the schema has two members {json.dumps(name)} in one object")
        found[name] = value
    return found


def _no_number(name: str) -> Any:
    raise GrammarError(f"the schema is not valid JSON: {name} is no number")


@dataclass(frozen=True)
class Draft:
    """One draft, as jsonschema knows it."""

    validator: Any

    @classmethod
    def of(cls, root: Any) -> Draft:
        """The draft of a document. Raises `GrammarError` for draft 3, which is another language."""
        from jsonschema import Draft3Validator, Draft202012Validator
        from jsonschema.validators import validator_for

        named = root.get("$schema") if isinstance(root, Mapping) else None
        known = {"$schema": named} if isinstance(named, str) else {}
        draft = validator_for(known, default=Draft202012Validator)
        if draft is Draft3Validator:
            raise GrammarError(f"#: $schema {named} is not supported; write draft-04 or later")
        return cls(draft)

    @property
    def name(self) -> str:
        meta = self.validator.META_SCHEMA
        return meta.get("$id", meta.get("id")).strip("#").removesuffix("/schema").rpartition("/")[2]

    def check(self, root: Any, deadline: Deadline) -> None:
        """Raises `GrammarError` for a document that is no schema of this draft."""
        from jsonschema.validators import extend

        def timed(validator: Any, wanted: Any, value: Any, schema: Any) -> Iterator[Any]:
            deadline.check()
            yield from self.validator.VALIDATORS["type"](validator, wanted, value, schema)

        meta = {k: v for k, v in self.validator.META_SCHEMA.items() if k != "$schema"}
        judge = extend(self.validator, {"type": timed})(
            meta, format_checker=self.validator.FORMAT_CHECKER, registry=_metaschemas()
        )
        with warnings.catch_warnings():
            # Of a pattern's class with [[ or &&, which has one meaning in ECMA-262.
            warnings.simplefilter("ignore", FutureWarning)
            error = next(judge.iter_errors(root), None)
        if error is not None:
            raise GrammarError(self._worded(list(error.absolute_path), error))

    def _worded(self, path: list[Any], error: Any) -> str:
        keyword, wanted = path[-1] if path else "", error.validator_value
        place, where = ("/".join(["#", *map(str, steps)]) for steps in (path, path[:-1]))
        shown = json.dumps(error.instance)[:40]
        if keyword == "items" and isinstance(error.instance, list):
            return (
                f"{where}: items is a list, which {self.name} writes prefixItems; or name "
                'the draft: "$schema": "http://json-schema.org/draft-07/schema#"'
            )
        if error.validator == "format":
            reason = re.sub(r"^bad escape (\S+)", r"\1 is not supported", str(error.cause or ""))
            return f"{place}: {shown} is no {wanted}{reason and f': {reason}'}"
        if keyword in ("exclusiveMinimum", "exclusiveMaximum"):
            return f"{where}: {keyword} needs a {wanted} in {self.name}, not {shown}"
        complaint = malformed({keyword: error.instance}, where)
        if complaint is not None:
            return complaint
        if keyword == "multipleOf":
            return f"{where}: multipleOf={shown} must be > 0"
        if keyword in COUNTS:
            return f"{where}: {keyword} needs an integer in {self.name}, not {shown}"
        if keyword == "type":
            if error.instance == []:
                return f"{where}: type needs at least one type, not []"
            if isinstance(error.instance, list) and set(error.instance) <= {*TYPES}:
                return f"{where}: type names a type twice: {shown}"
            return f"{where}: {shown} is no type of {self.name}, which has {', '.join(TYPES)}"
        if wanted in (["object", "boolean"], "object"):
            return f"{place}: {shown} is no schema"
        return f"{place}: {shown} is not what {self.name} has there ({error.validator})"

    @property
    def lenient(self) -> Any:
        """The draft's class, which knows open bounds and first items as `read` and merging write
        them, too."""
        from jsonschema import Draft202012Validator
        from jsonschema.validators import extend

        new, own = Draft202012Validator.VALIDATORS, self.validator.VALIDATORS

        def either(word: str, is_old: Callable[[Mapping[str, Any]], bool]) -> Any:
            def keyword(judge: Any, wanted: Any, value: Any, schema: Any) -> Iterator[Any]:
                check = (own if is_old(schema) else new).get(word)
                yield from (check and check(judge, wanted, value, schema)) or ()

            return keyword

        words = {
            "items": either("items", lambda schema: "prefixItems" not in schema),
            "prefixItems": new["prefixItems"],
        }
        for mark, bound in _BOUNDS:
            for word in (mark, bound):
                words[word] = either(
                    word, lambda schema, mark=mark: isinstance(schema.get(mark), bool)
                )
        return extend(self.validator, words)

    def check_judge(self, root: Any) -> None:
        """Raises `GrammarError` for a document that jsonschema can't follow."""
        from referencing.exceptions import Unresolvable

        try:
            judging.validator(root, self.validator, (), NEVER).is_valid(None)
        except Unresolvable as error:
            raise GrammarError(f"a reference can't be followed: {error}") from None

    def read(self, schema: Any, where: str, ignore_unknown: bool) -> Any:
        """The schema with what the draft reads: no siblings of `$ref` up to draft 7, no keywords of
        other drafts, numbers as open bounds, and counts as integers.

        Raises `GrammarError` for the latter unless `ignore_unknown`.
        """
        if not isinstance(schema, Mapping):
            return schema
        if isinstance(schema.get("$ref"), str) and not self._knows("unevaluatedItems"):
            return {"$ref": schema["$ref"]}
        found = {}
        for keyword, value in schema.items():
            if not self._knows(keyword):
                if ignore_unknown:
                    continue
                raise GrammarError(
                    f"{where}: keyword {keyword} is none of {self.name}; "
                    "constraint.unsupported=ignore passes over it"
                )
            here = f"{where}/{keyword}"
            if keyword in _MANY and isinstance(value, list):
                value = [
                    self.read(one, f"{here}/{i}", ignore_unknown) for i, one in enumerate(value)
                ]
            elif keyword in _ONE:
                value = self.read(value, here, ignore_unknown)
            elif keyword in _NAMED and isinstance(value, Mapping):
                value = {
                    name: self.read(one, f"{here}/{name}", ignore_unknown)
                    for name, one in value.items()
                }
            elif keyword in COUNTS and is_count(value):
                value = int(value)
            found[keyword] = value
        if not self._knows("const"):  # draft 4: an open bound is a closed one with a mark
            for mark, bound in _BOUNDS:
                if found.pop(mark, None) is True and bound in found:
                    found[mark] = found.pop(bound)
        return found

    def _knows(self, keyword: str) -> bool:
        if keyword in _EVERYWHERE or keyword not in UNDERSTOOD | STANDARD:
            return True
        return _WITH.get(keyword, keyword) in self.validator.VALIDATORS


def _metaschemas() -> Any:
    """The drafts' own schemas without `$schema`, which would bring back jsonschema's own class."""
    from jsonschema_specifications import REGISTRY
    from referencing import Registry
    from referencing.jsonschema import specification_with

    bare = []
    for uri in REGISTRY:
        contents: Any = REGISTRY.contents(uri)
        draft = specification_with(contents["$schema"])
        kept = {key: value for key, value in contents.items() if key != "$schema"}
        bare.append((uri, draft.create_resource(kept)))
    return Registry().with_resources(bare)
