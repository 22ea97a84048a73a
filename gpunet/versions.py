"""Versions of arrays: how backward notices that a value it saved was changed in place since."""

import weakref
from typing import Any


class Version:
    """How often an array was changed in place, and by whom last. Tensors that share memory share one."""

    count = 0
    op = ""
    sharers: list[weakref.ref[Any]] | None = None  # tensors and views of them
    limit = 32  # the list is cleared of the dead when it has grown this long

    def link(self, base: Any, view: Any) -> None:
        """Notes that ``view`` is a view of ``base``: neither may then change in place while gradients are recorded."""
        if self.sharers is None:
            self.sharers = []
        elif len(self.sharers) > self.limit:
            self.sharers = list({id(each): each for each in self.sharers if each() is not None}.values())
            self.limit = 2 * len(self.sharers) + 32
        self.sharers += (weakref.ref(base), weakref.ref(view))

    def sharer(self, tensor: Any) -> Any:
        """Another tensor that is alive and shares memory with ``tensor`` as its base or its view, or None."""
        alive = (each() for each in self.sharers or ())
        return next((each for each in alive if each is not None and each is not tensor), None)


def version_of(tensor: Any) -> Version:
    """The tensor's version record, made on first need: most tensors never need one."""
    if tensor._version is None:
        tensor._version = Version()
    return tensor._version
