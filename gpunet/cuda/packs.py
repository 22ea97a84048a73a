"""16 bytes at once in Numba's kernels: ``load_pack`` and ``store_pack``, which become one wide load and one wide store.

Numba's compiler never joins neighbouring loads of one element (they may alias), so the pack has to be said. In the
simulator both are plain Python.
"""

import importlib
from typing import Any

from gpunet.cuda import jit

BYTES = 16


def _simulated_load(array: Any, place: int) -> Any:
    lanes = BYTES // array.itemsize
    return tuple(array[place * lanes + k] for k in range(lanes))


def _simulated_store(array: Any, place: int, values: Any) -> None:
    lanes = BYTES // array.itemsize
    for k in range(lanes):
        array[place * lanes + k] = values[k]


def _intrinsics() -> tuple[Any, Any]:
    """Both as Numba's compiler takes them: code that writes the compiler's own intermediate language."""
    ir: Any = importlib.import_module("llvmlite.ir")
    types: Any = importlib.import_module("numba").types
    intrinsic: Any = importlib.import_module("numba.cuda.extending").intrinsic
    word, index = ir.IntType(32), ir.IntType(64)

    def address(context: Any, builder: Any, kind: Any, array: Any, place: Any, lanes: int) -> Any:
        """A pack's address as a pointer to a vector, and the vector's type."""
        made = context.make_array(kind)(context, builder, array)
        wide = place if place.type.width == index.width else builder.sext(place, index)
        pointer = builder.gep(made.data, [builder.mul(wide, ir.Constant(index, lanes))])
        vector = ir.VectorType(context.get_data_type(kind.dtype), lanes)
        return builder.bitcast(pointer, vector.as_pointer()), vector

    @intrinsic
    def load_pack(typing_context: Any, array: Any, place: Any) -> Any:
        lanes = BYTES * 8 // array.dtype.bitwidth
        result = types.UniTuple(array.dtype, lanes)

        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            pointer, _ = address(context, builder, signature.args[0], arguments[0], arguments[1], lanes)
            vector = builder.load(pointer)
            vector.align = BYTES
            values = [builder.extract_element(vector, ir.Constant(word, k)) for k in range(lanes)]
            return context.make_tuple(builder, result, values)

        return result(array, place), generate

    @intrinsic
    def store_pack(typing_context: Any, array: Any, place: Any, values: Any) -> Any:
        lanes = BYTES * 8 // array.dtype.bitwidth

        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            pointer, kind = address(context, builder, signature.args[0], arguments[0], arguments[1], lanes)
            vector = ir.Constant(kind, ir.Undefined)
            for k in range(lanes):
                element = builder.extract_value(arguments[2], k)
                vector = builder.insert_element(vector, element, ir.Constant(word, k))
            builder.store(vector, pointer).align = BYTES
            return context.get_dummy_value()

        return types.void(array, place, types.UniTuple(array.dtype, lanes)), generate

    return load_pack, store_pack


#: ``load_pack(array, place)``: the elements of the place-th 16 bytes of an array that begins at a multiple of 16 bytes,
#: as a tuple; ``store_pack(array, place, values)`` writes such a tuple
load_pack, store_pack = (_simulated_load, _simulated_store) if jit.SIMULATED else _intrinsics()
