"""What an agent can do besides speaking: async functions, as a model is told of them.

    @agent.tool
    async def order(size: Literal["small", "large"], count: int = 1) -> str:
        \"\"\"Order pizzas.

        Args:
            size: How large they are.
            count: How many.
        \"\"\"

The schema is made of the type hints and the docstring.  What a model writes is checked against it
before the function is called: what does not fit, what the function raises and what takes too long
goes back to the model in words, and the conversation goes on.
"""

from __future__ import annotations

import inspect
import typing
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, TypeVar, overload

import docstring_parser
import msgspec
from pydantic import BaseModel, ConfigDict, Field, ValidationError, create_model

from ..contracts import Message, Tool

DEADLINE_S = 10.0
"""How long a tool may take, if it does not say."""

RESULT_CHARACTERS = 4000
"""A result goes into every prompt from then on."""

OnBargeIn = Literal["cancel", "keep"]

Function = TypeVar("Function", bound=Callable[..., Awaitable[object]])


@dataclass(frozen=True, slots=True)
class CallInfo:
    """The call that a tool is used in.  A parameter with this type is filled in by us, and the
    model knows nothing of it.

    `parameters` are From, To, language and what the webhook's answer, or who ordered the call, has
    added; `messages` is the conversation so far, as it was heard.
    """

    sid: str
    parameters: Mapping[str, str]
    messages: tuple[Message, ...] = ()


@dataclass(frozen=True, slots=True)
class AgentTool:
    """One function that the model may call."""

    schema: Tool
    function: Callable[..., Awaitable[object]]
    arguments: type[BaseModel]
    given: Mapping[str, type] = field(default_factory=dict)
    """Parameters that the model knows nothing of: they are filled in by us, by their types."""
    on_barge_in: OnBargeIn = "cancel"
    deadline_s: float = DEADLINE_S
    filler: str | None = ""
    """What is said while it runs, if there is nothing else to hear; empty: the agent's own; None:
    nothing, because the caller is to do something."""

    async def use(self, arguments: str, offered: Sequence[object]) -> str:
        """Call the function with what a model wrote; return its result as the model will read it.

        `offered` are the values from which parameters are filled in that are not the model's.

        Raises:
            ValueError: the arguments do not fit; says in one line what is wrong.
            Exception: whatever the function raises.
        """
        values = self._checked(arguments)
        for name, kind in self.given.items():
            values[name] = next(value for value in offered if isinstance(value, kind))
        return as_text(await self.function(**values))

    def _checked(self, arguments: str) -> dict[str, Any]:
        try:
            model = self.arguments.model_validate_json(arguments or "{}")
        except ValidationError as error:
            raise ValueError("; ".join(_complaints(error))) from None
        return {name: getattr(model, name) for name in type(model).model_fields}


class Toolbox:
    """An agent's tools, by name."""

    def __init__(self) -> None:
        self._tools: dict[str, AgentTool] = {}

    def __repr__(self) -> str:
        return f"<Toolbox {', '.join(self._tools) or 'empty'}>"

    def __iter__(self) -> Iterator[AgentTool]:
        return iter(self._tools.values())

    def get(self, name: str) -> AgentTool | None:
        """Return a tool; None if there is none of that name."""
        return self._tools.get(name)

    def add(self, tool: AgentTool) -> None:
        """Add a tool.

        Raises:
            ValueError: there is one of that name.
        """
        if tool.schema.name in self._tools:
            raise ValueError(f"there are two tools named {tool.schema.name!r}")
        self._tools[tool.schema.name] = tool

    @overload
    def tool(self, function: Function, /) -> Function: ...
    @overload
    def tool(
        self,
        function: None = None,
        /,
        *,
        on_barge_in: OnBargeIn = ...,
        deadline_s: float = ...,
        filler: str = ...,
    ) -> Callable[[Function], Function]: ...
    def tool(
        self,
        function: Function | None = None,
        /,
        *,
        on_barge_in: OnBargeIn = "cancel",
        deadline_s: float = DEADLINE_S,
        filler: str = "",
    ) -> Function | Callable[[Function], Function]:
        """Make an async function a tool: a decorator, with or without arguments.

        `on_barge_in`: whether an interruption cancels it, or spares it; its result is written
        down either way.  `deadline_s`: how long it may take.  `filler`: what is said meanwhile.

        Raises:
            TypeError: it is not async, or cannot be described to a model.
            ValueError: there is a tool of that name.
        """

        def add(given: Function) -> Function:
            manners = {"on_barge_in": on_barge_in, "deadline_s": deadline_s, "filler": filler}
            self.add(tool_of(given, **manners))  # type: ignore[arg-type]
            return given

        return add if function is None else add(function)


def tool_of(
    function: Callable[..., Awaitable[object]],
    *,
    on_barge_in: OnBargeIn = "cancel",
    deadline_s: float = DEADLINE_S,
    filler: str | None = "",
    ours: Sequence[type] = (CallInfo,),
) -> AgentTool:
    """Describe an async function to a model, which learns nothing of parameters of types `ours`.

    Raises:
        TypeError: it is not async, or a parameter has no type hint or no name.
    """
    name = getattr(function, "__name__", "")
    if not inspect.iscoroutinefunction(function) or not name.isidentifier():
        raise TypeError(f"{function!r:.80}: a tool is an async function with a name")
    if on_barge_in not in typing.get_args(OnBargeIn):
        raise TypeError(f"{name}(): on_barge_in is 'cancel' or 'keep', not {on_barge_in!r}")
    described = docstring_parser.parse(inspect.getdoc(function) or "")
    meaning = {parameter.arg_name: parameter.description for parameter in described.params}
    fields, given = _parameters(function, meaning, ours)
    try:
        arguments = create_model(name, __config__=ConfigDict(extra="forbid"), **fields)
        schema = arguments.model_json_schema()
    except (TypeError, ValueError, RuntimeError) as error:  # pydantic's own are among them
        raise TypeError(f"{name}(): {str(error).partition(chr(10))[0]}") from None
    told = "\n".join(filter(None, (described.short_description, described.long_description)))
    return AgentTool(
        Tool(name, told or name.replace("_", " "), _without_titles(schema)),
        function,
        arguments,
        given,
        on_barge_in,
        deadline_s,
        filler,
    )


def as_text(result: object) -> str:
    """Return a result as a model reads it: text as it is, anything else as JSON; never empty."""
    if result is None:
        return "done"
    if not isinstance(result, str):
        if isinstance(result, BaseModel):
            result = result.model_dump(mode="json")
        result = msgspec.json.encode(result).decode()
    # Half a character, as in a file's name, is no text: no provider could be sent it.
    return result[:RESULT_CHARACTERS].encode("utf-8", "replace").decode() or "(empty)"


def _parameters(
    function: Callable[..., object], meaning: Mapping[str, str | None], ours: Sequence[type]
) -> tuple[dict[str, Any], dict[str, type]]:
    """Return pydantic's fields for a function's parameters, and those that are filled in."""
    name = getattr(function, "__name__", "")
    hints = typing.get_type_hints(function, include_extras=True)
    fields: dict[str, Any] = {}
    given: dict[str, type] = {}
    for parameter in inspect.signature(function).parameters.values():
        if parameter.kind not in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY):
            raise TypeError(f"{name}(): a model names what it gives; {parameter} has no name")
        if parameter.name not in hints:
            raise TypeError(f"{name}(): {parameter.name} has no type hint")
        hint = hints[parameter.name]
        if any(hint is each for each in ours):
            given[parameter.name] = hint
            continue
        described = meaning.get(parameter.name)
        if described:
            hint = Annotated[hint, Field(description=" ".join(described.split()))]
        is_needed = parameter.default is parameter.empty
        fields[parameter.name] = (hint, ... if is_needed else parameter.default)
    return fields, given


def _without_titles(schema: dict[str, Any]) -> dict[str, Any]:
    """Leave out pydantic's titles, which repeat the names, and cost tokens in every prompt."""
    kept = {name: value for name, value in schema.items() if name != "title"}
    for name, value in kept.items():
        if name == "properties":  # here a title would be a parameter of that name
            kept[name] = {key: _without_titles(each) for key, each in value.items()}
        elif isinstance(value, dict):
            kept[name] = _without_titles(value)
        elif isinstance(value, list):
            kept[name] = [_without_titles(v) if isinstance(v, dict) else v for v in value]
    return kept


def _complaints(error: ValidationError) -> Iterator[str]:
    for problem in error.errors(include_url=False, include_context=False):
        where = ".".join(str(part) for part in problem["loc"])
        yield f"{where}: {problem['msg']}" if where else str(problem["msg"])
