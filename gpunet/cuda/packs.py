"""16 bytes at once in Numba's kernels: ``load_pack`` and ``store_pack``, which become one wide load and one wide store.

``load_two``, ``load_four`` and ``store_tuple`` do the same for 2 or 4 neighbours of any type.

Numba's compiler never joins neighbouring loads of one element (they may alias), so the pack has to be said. In the
simulator all are plain Python.
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


def _simulated_loads(count: int) -> Any:
    return lambda array, first: tuple(array[first + k] for k in range(count))


def _simulated_store_tuple(array: Any, first: int, values: Any) -> None:
    for k in range(len(values)):
        array[first + k] = values[k]


def _few_intrinsics() -> tuple[Any, Any, Any]:
    """The three for a few neighbours, as Numba's compiler takes them."""
    ir: Any = importlib.import_module("llvmlite.ir")
    types: Any = importlib.import_module("numba").types
    intrinsic: Any = importlib.import_module("numba.cuda.extending").intrinsic
    word = ir.IntType(32)

    def pointer(context: Any, builder: Any, kind: Any, array: Any, first: Any, count: int) -> tuple[Any, Any]:
        """Where ``count`` elements lie, as a pointer to a vector, and the vector's type."""
        made = context.make_array(kind)(context, builder, array)
        vector = ir.VectorType(context.get_data_type(kind.dtype), count)
        return builder.bitcast(builder.gep(made.data, [first]), vector.as_pointer()), vector

    def loads(count: int) -> Any:
        @intrinsic
        def load(typing_context: Any, array: Any, first: Any) -> Any:
            result = types.UniTuple(array.dtype, count)

            def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
                at, _ = pointer(context, builder, signature.args[0], arguments[0], arguments[1], count)
                vector = builder.load(at)
                vector.align = count * array.dtype.bitwidth // 8
                values = [builder.extract_element(vector, ir.Constant(word, k)) for k in range(count)]
                return context.make_tuple(builder, result, values)

            return result(array, types.int64), generate

        return load

    @intrinsic
    def store_tuple(typing_context: Any, array: Any, first: Any, values: Any) -> Any:
        count, given = values.count, values.dtype

        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            at, kind = pointer(context, builder, signature.args[0], arguments[0], arguments[1], count)
            vector = ir.Constant(kind, ir.Undefined)
            for k in range(count):
                value = context.cast(builder, builder.extract_value(arguments[2], k), given, array.dtype)
                vector = builder.insert_element(vector, value, ir.Constant(word, k))
            builder.store(vector, at).align = count * array.dtype.bitwidth // 8
            return context.get_dummy_value()

        return types.void(array, types.int64, values), generate

    return loads(2), loads(4), store_tuple


#: ``load_two(array, first)``: two neighbours from element ``first`` on, a multiple of 2, as a tuple, by one load;
#: ``load_four`` likewise; ``store_tuple(array, first, values)`` writes such a tuple by one store
load_two, load_four, store_tuple = (
    (_simulated_loads(2), _simulated_loads(4), _simulated_store_tuple) if jit.SIMULATED else _few_intrinsics()
)
