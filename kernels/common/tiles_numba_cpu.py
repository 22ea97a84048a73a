"""Tiles of sums that stay in the processor's registers: what Numba's loops cannot say, said to LLVM directly.

A loop over an array of sums makes LLVM load and store each sum at every step. Here the sums of a tile are values of
the loop itself, so they live in vector registers from its first step to its last. One tile is all that products and
convolutions need, and another takes the gradient of few filters:

    multiply_tile   out[r, i] = sum over k of  a[rows[r] + a_steps[k]] * x[at + x_steps[k] + i]       from out[to] on
                    i runs along the lanes of vectors; a is spread over all lanes, x is read as it lies.
    dot_tile        out[r, t] = sum over q of  a[rows[r] + q] * x[steps[t] + q]
                    q runs along the lanes.

It reads x by a table of steps, so a convolution needs no columns: a tap of the window is a step in the image.
The tile's shape follows from the width and number of the vector registers that this processor has.
"""

from functools import cache

import llvmlite.binding as llvm
import numpy as np
from llvmlite import ir
from numba.core import cgutils, types

from gpunet.cpu.jit import compiled, intrinsic


@cache
def registers() -> tuple[int, int]:
    """Bytes of a vector register, and how many there are."""
    features = llvm.get_host_cpu_features()
    if features.get("avx512f"):
        return 64, 32
    if features.get("avx2") or features.get("avx"):
        return 32, 16
    return (16, 32) if features.get("neon") else (16, 16)


VECTORS = 3  # of x in a tile of multiply_tile
ROWS = 8 if registers()[1] == 32 else 4  # of a in it: ROWS * VECTORS sums, VECTORS of x and one of a fit
DOTS = (3, 5) if registers()[1] == 32 else (3, 3)  # rows of a and steps of x of a dot_tile


def width(dtype) -> int:
    """Elements of x beside each other in a tile of multiply_tile."""
    return VECTORS * registers()[0] // np.dtype(dtype).itemsize


@compiled(inline=True)
def width_of(vectors, vector):
    """Vectors of the next column of tiles, VECTORS at the most, after ``vector`` of them: all are about as wide."""
    left = vectors - vector
    columns = (left + VECTORS - 1) // VECTORS
    return (left + columns - 1) // columns


class _Tile:
    """What all tiles build their loops from; ``real`` is the type of an element."""

    def __init__(self, context, builder, signature, args):
        self.context, self.builder = context, builder
        self.types, self.args = signature.args, args
        real = self.types[0].dtype
        self.item = real.bitwidth // 8
        self.lanes = registers()[0] // self.item
        self.real = ir.FloatType() if real == types.float32 else ir.DoubleType()
        self.vector = ir.VectorType(self.real, self.lanes)
        self.index = ir.IntType(64)
        kind = ir.FunctionType(self.vector, [self.vector] * 3)
        name = f"llvm.fma.v{self.lanes}f{8 * self.item}"
        self.fma = cgutils.get_or_insert_function(builder.module, kind, name)

    def number(self, value):
        return ir.Constant(self.index, value)

    def pointer(self, position):
        """To the first element of the array that is argument ``position``."""
        array = self.context.make_array(self.types[position])(self.context, self.builder, self.args[position])
        return array.data

    def moved(self, pointer, *steps):
        for step in steps:
            pointer = self.builder.gep(pointer, [step if isinstance(step, ir.Value) else self.number(step)])
        return pointer

    def load(self, pointer):
        """A vector from any address that holds an element."""
        found = self.builder.load(self.builder.bitcast(pointer, self.vector.as_pointer()))
        found.align = self.item
        return found

    def store(self, value, pointer):
        self.builder.store(value, self.builder.bitcast(pointer, self.vector.as_pointer())).align = self.item

    def spread(self, pointer):
        """One element in every lane."""
        lane = ir.IntType(32)
        nothing = ir.Constant(self.vector, ir.Undefined)
        one = self.builder.insert_element(nothing, self.builder.load(pointer), ir.Constant(lane, 0))
        everywhere = ir.Constant(ir.VectorType(lane, self.lanes), [0] * self.lanes)
        return self.builder.shuffle_vector(one, nothing, everywhere)

    def added_up(self, vector):
        """The sum of the lanes: halves, quarters and so on are added to each other."""
        lane, size = ir.IntType(32), self.lanes
        while size > 1:
            size //= 2
            places = [k + size if k < size else k for k in range(self.lanes)]
            other = self.builder.shuffle_vector(vector, vector, ir.Constant(ir.VectorType(lane, self.lanes), places))
            vector = self.builder.fadd(vector, other)
        return self.builder.extract_element(vector, ir.Constant(lane, 0))

    def never_unrolled(self):
        """Two steps at once need twice the registers for what is loaded, and the sums would go to memory."""
        module = self.builder.module
        told = module.add_metadata([ir.MetaDataString(module, "llvm.loop.unroll.disable")])
        found = module.add_metadata([ir.MetaDataString(module, "loop"), told])
        found.operands = (found, told)  # LLVM wants a loop's node to begin with itself
        return found

    def loop(self, count, step, sums, body):
        """Runs ``body(k, sums) -> sums`` for k = 0, step, ... below ``count``, with so many sums; returns the last."""
        builder, before = self.builder, self.builder.block
        head, inside, end = (builder.append_basic_block(name) for name in ("tile", "tile.step", "tile.end"))
        builder.branch(head)
        builder.position_at_end(head)
        k = builder.phi(self.index)
        k.add_incoming(self.number(0), before)
        held = [builder.phi(self.vector) for _ in range(sums)]
        for each in held:
            each.add_incoming(ir.Constant(self.vector, [0.0] * self.lanes), before)
        builder.cbranch(builder.icmp_signed("<", k, count), inside, end)
        builder.position_at_end(inside)
        new = body(k, held)
        k.add_incoming(builder.add(k, self.number(step)), builder.block)
        for phi, value in zip(held, new, strict=True):
            phi.add_incoming(value, builder.block)
        builder.branch(head).set_metadata("llvm.loop", self.never_unrolled())
        builder.position_at_end(end)
        return held


@intrinsic(prefer_literal=True)
def multiply_tile(typingctx, a, rows, a_steps, x, at, x_steps, count, out, to, height, vectors):
    """``out[to + r * width + i]``; see the head of this file.

    ``height`` and ``vectors``, written as numbers, say how many rows there are and how many vectors of x each is wide:
    ROWS and VECTORS are the fastest.
    All arrays are flat; rows, a_steps and x_steps are int64; at, count and to too. Nothing is checked.
    """
    tall, wide = height.literal_value, vectors.literal_value

    def code(context, builder, signature, args):
        tile = _Tile(context, builder, signature, args)
        rows_at = tile.pointer(1)
        bases = [tile.moved(tile.pointer(0), builder.load(tile.moved(rows_at, r))) for r in range(tall)]
        a_steps_at, x_steps_at = tile.pointer(2), tile.pointer(5)
        x_at = tile.moved(tile.pointer(3), args[4])

        def step(k, sums):
            moved = builder.load(tile.moved(a_steps_at, k))
            x_here = tile.moved(x_at, builder.load(tile.moved(x_steps_at, k)))
            lines = [tile.load(tile.moved(x_here, v * tile.lanes)) for v in range(wide)]
            found = []
            for r, base in enumerate(bases):
                one = tile.spread(tile.moved(base, moved))
                found += [builder.call(tile.fma, [lines[v], one, sums[r * wide + v]]) for v in range(wide)]
            return found

        out_at = tile.moved(tile.pointer(7), args[8])
        for position, value in enumerate(tile.loop(args[6], 1, tall * wide, step)):
            tile.store(value, tile.moved(out_at, position * tile.lanes))
        return context.get_dummy_value()

    found = types.void(a, rows, a_steps, x, types.int64, x_steps, types.int64, out, types.int64, height, vectors)
    return found, code


@intrinsic(prefer_literal=True)
def dot_tile(typingctx, a, rows, x, steps, count, out, to, height, taps):
    """``out[to + r * taps + t] = sum over q < count of  a[rows[r] + q] * x[steps[t] + q]``, in whole vectors of q.

    Lanes are added up in pairs at the end. ``height`` and ``taps`` are written as numbers: DOTS are the fastest, each
    number of a is then read once for several of x, and the other way round. Nothing is checked.
    """
    tall, wide = height.literal_value, taps.literal_value

    def code(context, builder, signature, args):
        tile = _Tile(context, builder, signature, args)
        rows_at, steps_at = tile.pointer(1), tile.pointer(3)
        lines = [tile.moved(tile.pointer(0), builder.load(tile.moved(rows_at, r))) for r in range(tall)]
        places = [tile.moved(tile.pointer(2), builder.load(tile.moved(steps_at, t))) for t in range(wide)]

        def step(q, sums):
            a_here = [tile.load(tile.moved(line, q)) for line in lines]
            found = list(sums)
            for t, place in enumerate(places):
                x_here = tile.load(tile.moved(place, q))
                for r in range(tall):
                    found[r * wide + t] = builder.call(tile.fma, [a_here[r], x_here, sums[r * wide + t]])
            return found

        sums = tile.loop(args[4], tile.lanes, tall * wide, step)
        for position, value in enumerate(sums):
            builder.store(tile.added_up(value), tile.moved(tile.pointer(5), args[6], position))
        return context.get_dummy_value()

    return types.void(a, rows, x, steps, types.int64, out, types.int64, height, taps), code


def _bytes_of(context, array):
    return context.get_abi_sizeof(context.get_data_type(array.dtype))


@intrinsic
def copy_elements(typingctx, out, to, x, at, count):
    """``out[to : to + count] = x[at : at + count]`` of two flat arrays that do not overlap; nothing is checked."""

    def code(context, builder, signature, args):
        tile = _Flat(context, builder, signature, args)
        size = _bytes_of(context, signature.args[0])
        cgutils.raw_memcpy(builder, tile.at(0, args[1]), tile.at(2, args[3]), args[4], size)
        return context.get_dummy_value()

    return types.void(out, to, x, at, count), code


@intrinsic
def zero_elements(typingctx, out, to, count):
    """``out[to : to + count] = 0`` of a flat array; nothing is checked."""

    def code(context, builder, signature, args):
        tile = _Flat(context, builder, signature, args)
        size = _bytes_of(context, signature.args[0])
        nbytes = builder.mul(args[2], ir.Constant(args[2].type, size))
        cgutils.memset(builder, tile.at(0, args[1]), nbytes, 0)
        return context.get_dummy_value()

    return types.void(out, to, count), code


class _Flat:
    """Pointers into arrays that are arguments."""

    def __init__(self, context, builder, signature, args):
        self.context, self.builder, self.types, self.args = context, builder, signature.args, args

    def at(self, position, index):
        """To element ``index`` of the array that is argument ``position``."""
        array = self.context.make_array(self.types[position])(self.context, self.builder, self.args[position])
        return self.builder.gep(array.data, [index])
