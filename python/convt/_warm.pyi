from collections.abc import Callable
from typing import Any

def use_tensors(tensor: type, empty_strided: Callable[..., Any]) -> None: ...
def conv_transpose2d(
    input: Any, weight: Any, address: int, packed: Any, bias: Any, numbers: bytes, /
) -> Any: ...
