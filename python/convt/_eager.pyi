from collections.abc import Callable
from types import ModuleType
from typing import Any

def use_torch(
    torch: ModuleType,
    parameter: type,
    empty_strided: Callable[..., Any],
    fp32_precision: Callable[[str, str], str],
    questions: tuple[Callable[[], Any], ...],
) -> bool: ...
def answers_planned() -> int: ...
def conv_transpose(
    input: Any,
    weight: Any,
    bias: Any,
    frozen: tuple[Any, ...] | None,
    geometry: tuple[int, ...],
    precision: int | str,
    /,
) -> Any: ...
def facts(tensor: Any, /) -> bytes | None: ...
def is_of(frozen: tuple[Any, ...], weight: Any, /) -> bool | None: ...
