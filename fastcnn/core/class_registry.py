"""Classes by name: what a file may hold, and what a name such as ``loss="mse"`` stands for.

The names of fastcnn's own classes cannot be taken by others, because files that hold these names
would then mean something else. A class of a user's own is written to files together with its
module. A file is never a reason to import anything: its classes must be there before it is read.
"""

from __future__ import annotations

from typing import Any, NoReturn, TypeVar

from fastcnn.core.quoting import quoted

T = TypeVar("T")

_LONGEST = 200  # characters of a module's name that an error repeats


def is_own(cls: type) -> bool:
    """Whether a class is one of fastcnn's own.

    >>> is_own(Registry), is_own(dict)
    (True, False)
    """
    return cls.__module__.split(".", 1)[0] == "fastcnn"


def module_of(cls: type) -> dict[str, str]:
    """What a file holds beside the name of a class: nothing for fastcnn's own, else the module.

    >>> module_of(Registry), module_of(dict)
    ({}, {'module': 'builtins'})
    """
    return {} if is_own(cls) else {"module": cls.__module__}


class Registry(dict[str, type[T]]):
    """Classes of one kind by name, fastcnn's own and the user's.

    A class statement that takes the name of one of fastcnn's own is a ``TypeError``. The same
    class may be defined again, as when a notebook's cell runs twice: the new one then counts. Two
    modules may each define a class of one name, because files hold the module too.

    >>> kinds = Registry("layer")
    >>> class Mine: ...
    >>> kinds.add("Mine", Mine)
    >>> kinds.find("Mine", None) is Mine
    True
    """

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind
        self._of_modules: dict[tuple[str, str], type[T]] = {}

    def add(self, name: str, cls: type[T]) -> None:
        """Enter a class where it is defined.

        Raises ``TypeError`` for a name that one of fastcnn's own classes has.
        """
        self._check(name, cls)
        if not is_own(cls):
            self._of_modules[cls.__module__, name] = cls
        super().__setitem__(name, cls)

    def find(self, name: object, module: object) -> type[T]:
        """The class of a file's name and module; ``ValueError`` where there is none.

        ``module`` is None for fastcnn's own classes, and in files of earlier versions. A class
        that has moved to another module is the same class, if only one has its name.
        """
        if isinstance(name, str) and module is None and name in self:
            return self[name]
        if isinstance(name, str) and isinstance(module, str):
            if (module, name) in self._of_modules:
                return self._of_modules[module, name]
            others = {cls for (_, other), cls in self._of_modules.items() if other == name}
            if len(others) == 1:
                return others.pop()
            raise ValueError(
                f"{self.kind} {name!r} is not known here: it was defined in the module "
                f"{module[:_LONGEST]!r}; import that module, or define the class, and then read "
                f"the file again"
            )
        raise ValueError(
            f"{self.kind} {name!r} is unknown to this version of fastcnn; "
            f"a {self.kind} must be one of {', '.join(self)}"
        )

    def _check(self, name: object, cls: type | None) -> None:
        if not isinstance(name, str):
            raise TypeError(f"the name of a {self.kind} must be a string, got {quoted(name)}")
        other = self.get(name)
        if other is None or not is_own(other):
            return
        if cls is not None and (cls.__module__, cls.__qualname__) == (
            other.__module__,
            other.__qualname__,
        ):
            return  # fastcnn's own module is loaded again
        raise TypeError(
            f"the {self.kind} name {name!r} belongs to fastcnn's own "
            f"{other.__module__}.{other.__qualname__}; give the class another name"
        )

    def __setitem__(self, name: str, cls: type[T]) -> None:
        self.add(name, cls)

    def __delitem__(self, name: str) -> None:
        self.pop(name)

    def pop(self, name: str, *default: Any) -> Any:
        """Take a class of the user's own away."""
        self._check(name, None)
        cls = super().pop(name, *default)
        for key in [key for key in self._of_modules if key[1] == name]:
            del self._of_modules[key]
        return cls

    def _refuse(self, *_: Any, **__: Any) -> NoReturn:
        raise TypeError(f"classes enter the names of {self.kind}s where they are defined")

    clear = popitem = setdefault = update = __ior__ = _refuse
