"""Classes by name, for files and for arguments such as ``loss="mse"``.

Users' classes cannot have the names of fastcnn's own classes, because files that hold these names
would then mean something else. A file holds the module of a user's class beside its name. Reading a
file never imports a module: the classes of a file must be defined before it is read.
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
    """The entry of a class's module in a file, empty for fastcnn's own classes.

    >>> module_of(Registry), module_of(dict)
    ({}, {'module': 'builtins'})
    """
    return {} if is_own(cls) else {"module": cls.__module__}


class Registry(dict[str, type[T]]):
    """Classes of one kind by name, fastcnn's own and the user's.

    A class statement with the name of one of fastcnn's own classes raises a ``TypeError``. A user's
    class may be defined again, as when a notebook's cell runs twice: the new class replaces the old
    one. Two modules may each define a class of one name, because files hold the module too.

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
        """Enter a class when it is defined.

        Raises ``TypeError`` if one of fastcnn's own classes has the name.
        """
        self._check(name, cls)
        if not is_own(cls):
            self._of_modules[cls.__module__, name] = cls
        super().__setitem__(name, cls)

    def find(self, name: object, module: object) -> type[T]:
        """The class with a file's name and module; ``ValueError`` if there is none.

        ``module`` is None for fastcnn's own classes, and in files of earlier versions. If the
        module has no such class and exactly one other module has, the class of that module counts.
        """
        if isinstance(name, str) and module is None and name in self:
            return self[name]
        if isinstance(name, str) and isinstance(module, str):
            if (module, name) in self._of_modules:
                return self._of_modules[module, name]
            same_name = {cls for (_, other), cls in self._of_modules.items() if other == name}
            if len(same_name) == 1:
                return same_name.pop()
            raise ValueError(
                f"{self.kind} {name!r} is not known here: it was defined in the module "
                f"{module[:_LONGEST]!r}; import its module first, or define the class, and then "
                f"read the file again"
            )
        raise ValueError(
            f"{self.kind} {name!r} is unknown to this version of fastcnn; "
            f"a {self.kind} must be one of {', '.join(self)}"
        )

    def _check(self, name: object, cls: type | None) -> None:
        if not isinstance(name, str):
            raise TypeError(f"the name of a {self.kind} must be a string, got {quoted(name)}")
        earlier = self.get(name)
        if earlier is None or not is_own(earlier):
            return
        if cls is not None and (cls.__module__, cls.__qualname__) == (
            earlier.__module__,
            earlier.__qualname__,
        ):
            return  # fastcnn's own module is loaded again
        raise TypeError(
            f"the {self.kind} name {name!r} belongs to fastcnn's own "
            f"{earlier.__module__}.{earlier.__qualname__}; give the class another name"
        )

    def __setitem__(self, name: str, cls: type[T]) -> None:
        self.add(name, cls)

    def __delitem__(self, name: str) -> None:
        self.pop(name)

    def pop(self, name: str, *default: object) -> Any:
        """Remove a user's class."""
        self._check(name, None)
        cls = super().pop(name, *default)
        for key in [key for key in self._of_modules if key[1] == name]:
            del self._of_modules[key]
        return cls

    def _refuse(self, *_: object, **__: object) -> NoReturn:
        raise TypeError(f"classes enter the names of {self.kind}s where they are defined")

    clear = popitem = setdefault = update = __ior__ = _refuse
