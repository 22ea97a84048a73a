// Every load and store of a kernel, seen through the calls that -fsanitize=thread puts in front of it.
//
// The thread sanitizer's own library is not linked: the functions of its names below are the project's. Each access is
// placed (an argument array, shared memory, the thread's own stack, data of the kernel file, or nowhere), held against
// the shadow of what was read and written before, and refused before it happens. The functions that
// -fsanitize=alignment,bounds,... calls live here too; they bring file and line with them.

#include "runtime.h"

#include <cstdarg>
#include <cstdio>
#include <cstring>

namespace cuda_emulator {

void say(Report& report, const char* format, ...) {
    va_list rest;
    va_start(rest, format);
    std::vsnprintf(report.text, sizeof report.text, format, rest);
    va_end(rest);
}

Report about(Kind kind, u64 pc) {
    Fiber* f = self();
    Report report{};
    report.kind = kind;
    report.pc = pc;
    report.block = f->worker->block;
    report.thread = f->thread;
    return report;
}

static Index thread_at(u32 number, Index size) {
    return {number % size.x, number / size.x % size.y, number / (size.x * size.y)};
}

static Index block_at(u32 tag, Index size) { return thread_at(tag - 1, size); }

namespace {

struct Access {
    Fiber* f;
    Worker* w;
    u64 address;
    u32 size, space, buffer;
    bool write, atomic;
    u64 pc;
};

[[noreturn]] void refuse(const Access& a, Kind kind) {
    Report report = about(kind, a.pc);
    report.address = a.address;
    report.size = a.size;
    report.write = a.write;
    report.space = a.space;
    report.buffer = a.buffer;
    fail(report);
}

[[noreturn]] void refuse_race(const Access& a, u32 block, u16 thread, bool wrote, u32 pc) {
    Launch* launch = a.w->launch;
    Report report = about(RACE, a.pc);
    report.address = a.address;
    report.size = a.size;
    report.write = a.write;
    report.space = a.space;
    report.buffer = a.buffer;
    report.has_other = 1;
    report.other_write = wrote;
    report.other_pc = launch->image + pc;
    report.other_block = block == SEVERAL ? Index{~0u, ~0u, ~0u} : block_at(block, launch->grid);
    bool several = wrote ? thread == ATOMIC_SEVERAL : thread >= LANES;
    report.other_thread = several ? Index{~0u, ~0u, ~0u} : thread_at(thread & 0x3ffu, launch->block);
    fail(report);
}

// A block may look at what another wrote if the writer fenced after it and this block has done an atomic since.
bool handed_over(Worker* w, u32 block, u32 epoch) {
    Released& theirs = w->common->released[block - 1];
    Released& own = w->common->released[w->tag - 1];
    return theirs.epoch.load(std::memory_order_relaxed) > epoch && own.acquired.load(std::memory_order_relaxed);
}

// Ordered by a barrier of the warp: the same warp, which has synchronised since.
bool ordered_in_warp(const Access& a, u32 thread, u16 step) {
    u32 warp = a.f->number / 32;
    return thread / 32 == warp && step != a.w->step[warp];
}

void check_last_write(const Access& a, const Cell& c) {
    Worker* w = a.w;
    if (c.writer_block == 0 || c.writer_block == FRESH) return;
    if (c.writer_block != w->tag) {
        if (a.space != 1 || (a.atomic && c.writer & ATOMIC)) return;
        if (handed_over(w, c.writer_block, c.writer_epoch)) return;
        refuse_race(a, c.writer_block, c.writer, true, c.writer_pc);
        return;
    }
    if (c.writer_step == PENDING) {
        Report report = about(PENDING_COPY, a.pc);
        report.address = a.address;
        report.size = a.size;
        report.write = a.write;
        report.space = a.space;
        report.has_other = 1;
        report.other_pc = w->launch->image + c.writer_pc;
        report.other_block = w->block;
        report.other_thread = thread_at(c.writer, w->launch->block);
        fail(report);
    }
    if (c.writer_epoch != w->epoch) return;
    if (c.writer & ATOMIC) {
        if (a.atomic || c.writer == (ATOMIC | a.f->number)) return;
    } else if (c.writer == a.f->number || ordered_in_warp(a, c.writer, c.writer_step)) {
        return;
    }
    refuse_race(a, c.writer_block, c.writer, true, c.writer_pc);
}

void check_reads_before(const Access& a, const Cell& c) {
    Worker* w = a.w;
    if (c.reader_block == 0) return;
    if (c.reader_block != w->tag) {
        if (a.space != 1) return;
        bool fine = c.reader_block != SEVERAL && handed_over(w, c.reader_block, c.reader_epoch);
        if (!fine) refuse_race(a, c.reader_block, c.reader, false, c.reader_pc);
        return;
    }
    if (c.reader_epoch != w->epoch) return;
    u32 warp = a.f->number / 32;
    bool fine;
    if (c.reader & WARPS) fine = false;
    else if (c.reader & LANES) fine = (c.reader & 0x3ffu) == warp && c.reader_step != w->step[warp];
    else fine = c.reader == a.f->number || ordered_in_warp(a, c.reader, c.reader_step);
    if (!fine) refuse_race(a, c.reader_block, c.reader, false, c.reader_pc);
}

void note_read(const Access& a, Cell& c) {
    Worker* w = a.w;
    u16 number = u16(a.f->number), step = w->step[number / 32];
    if (c.reader_block == w->tag && c.reader_epoch == w->epoch) {
        if (c.reader == number) {
            c.reader_step = step;
            return;
        }
        u32 warp = c.reader & LANES ? c.reader & 0x3ffu : c.reader / 32u;
        if (c.reader & WARPS) return;
        if (warp != number / 32u) c.reader = WARPS;
        else if (c.reader_step == step) c.reader = u16(LANES | warp);
        else c.reader = number;
    } else if (a.space == 1 && c.reader_block != 0 && c.reader_block != w->tag) {
        c.reader_block = SEVERAL;
    } else {
        c.reader_block = w->tag;
        c.reader = number;
    }
    c.reader_epoch = w->epoch;
    c.reader_step = step;
    c.reader_pc = u32(a.pc - w->launch->image);
}

void note_write(const Access& a, Cell& c) {
    Worker* w = a.w;
    u16 number = u16(a.f->number), writer = number;
    if (a.atomic) {
        bool shared = c.writer_block == w->tag && c.writer & ATOMIC && c.writer != (ATOMIC | number);
        writer = shared ? ATOMIC_SEVERAL : u16(ATOMIC | number);
    }
    c.writer_block = w->tag;
    c.writer_epoch = w->epoch;
    c.writer = writer;
    c.writer_step = w->step[number / 32];
    c.writer_pc = u32(a.pc - w->launch->image);
}

void visit(const Access& a, Cell& c) {
    bool reads = !a.write || a.atomic;
    bool empty = a.space == 1 ? c.writer_block == FRESH : c.writer_block != a.w->tag;
    if (reads && empty) refuse(a, UNINITIALISED);
    check_last_write(a, c);
    if (a.write) {
        check_reads_before(a, c);
        note_write(a, c);
    } else {
        note_read(a, c);
    }
}

void visit_cells(const Access& a, Cell* cells, u64 offset, u32 granule, u8* written) {
    u64 last = (offset + a.size - 1) >> granule;
    for (u64 k = offset >> granule; k <= last; ++k) {
        visit(a, cells[k]);
        if (written && a.write) written[k] = 1;
    }
}

void visit_shared(Access& a, u64 offset, u64 bytes, Cell* cells) {
    if (offset + a.size > bytes) refuse(a, SHARED_OUT_OF_BOUNDS);
    u32 granule = a.w->launch->shared_granule;
    if (granule && ((offset | a.size) & 3)) refuse(a, FINER_SHADOW);
    visit_cells(a, cells, offset, granule, nullptr);
}

void visit_global(Access& a) {
    Launch* launch = a.w->launch;
    for (u32 tried = 0, k = a.w->last_buffer; tried < launch->buffer_count; ++tried) {
        const Buffer& b = launch->buffers[k];
        u64 offset = a.address - b.begin;
        if (offset < b.bytes) {
            a.buffer = k;
            a.w->last_buffer = k;
            if (offset + a.size > b.bytes) refuse(a, OUT_OF_BOUNDS);
            if (a.write && !b.writable) refuse(a, CONST_WRITE);
            visit_cells(a, a.w->common->cells[k], offset, b.granule, b.written);
            return;
        }
        k = k + 1 == launch->buffer_count ? 0 : k + 1;
    }
    refuse(a, OUT_OF_BOUNDS);
}

void place(u64 address, u32 size, bool write, bool atomic, u64 pc) {
    Fiber* f = self();
    Worker* w = f->worker;
    Launch* launch = w->launch;
    Access a{f, w, address, size, 1, ~0u, write, atomic, pc};
    if (++f->accesses > launch->limit) refuse(a, ENDLESS);
    if (u64 offset = address - w->dynamic_begin; offset < w->dynamic_bytes) {
        a.space = 3;
        visit_shared(a, offset, w->dynamic_bytes, w->dynamic_cells);
    } else if (offset = address - w->static_begin; offset < w->static_bytes) {
        a.space = 2;
        visit_shared(a, offset, w->static_bytes, w->static_cells);
    } else if (address - launch->arena < launch->arena_bytes) {
        visit_global(a);
    } else if (address - u64(f) - sizeof(Fiber) < STACK - sizeof(Fiber)) {
        return;  // the thread's own variables
    } else if (address - launch->image < launch->image_bytes) {
        return;  // __constant__ and other data of the kernel file
    } else {
        // Near the end of dynamic shared memory it is more likely that than a wild pointer.
        a.space = address - w->dynamic_begin < w->dynamic_bytes + 65536 || w->dynamic_begin - address < 65536 ? 3 : 0;
        refuse(a, a.space ? SHARED_OUT_OF_BOUNDS : OUT_OF_BOUNDS);
    }
}

}  // namespace

void check(u64 address, u32 size, bool write, u64 pc) { place(address, size, write, false, pc); }
void check_atomic(u64 address, u32 size, u64 pc) { place(address, size, true, true, pc); }

static Cell* shared_cell(Worker* w, u64 address) {
    u32 granule = w->launch->shared_granule;
    u64 dynamic = address - w->dynamic_begin, fixed = address - w->static_begin;
    if (dynamic < w->dynamic_bytes) return w->dynamic_cells + (dynamic >> granule);
    if (fixed < w->static_bytes) return w->static_cells + (fixed >> granule);
    return nullptr;
}

// The target of an asynchronous copy: a write whose moment is not known until the thread waits for it.
void check_pending(u64 address, u32 size, u64 pc) {
    place(address, size, true, false, pc);
    Worker* w = self()->worker;
    Cell* cell = shared_cell(w, address);
    for (u32 k = 0; cell && k < size >> w->launch->shared_granule; ++k) cell[k].writer_step = PENDING;
}

// The thread has waited: from here on it is a write of this thread, at this moment.
void finish_pending(u64 address, u32 size, u64 pc) {
    Worker* w = self()->worker;
    Cell* cell = shared_cell(w, address);
    Access a{self(), w, address, size, 2, ~0u, true, false, pc};
    for (u32 k = 0; cell && k < size >> w->launch->shared_granule; ++k) note_write(a, cell[k]);
}

}  // namespace cuda_emulator

using namespace cuda_emulator;

#define PC u64(__builtin_return_address(0))
#define HOOK(size)                                                                                                    \
    void __tsan_read##size(void* p) { check(u64(p), size, false, PC); }                                               \
    void __tsan_write##size(void* p) { check(u64(p), size, true, PC); }                                               \
    void __tsan_volatile_read##size(void* p) { check(u64(p), size, false, PC); }                                      \
    void __tsan_volatile_write##size(void* p) { check(u64(p), size, true, PC); }                                      \
    void __tsan_unaligned_read##size(void* p) { check(u64(p), size, false, PC); }                                     \
    void __tsan_unaligned_write##size(void* p) { check(u64(p), size, true, PC); }                                     \
    void __tsan_read_write##size(void* p) { check(u64(p), size, false, PC), check(u64(p), size, true, PC); }          \
    void __tsan_unaligned_read_write##size(void* p) { check(u64(p), size, false, PC), check(u64(p), size, true, PC); }

extern "C" {
HOOK(1)
HOOK(2)
HOOK(4)
HOOK(8)
HOOK(16)
void __tsan_init() {}
void __tsan_func_entry(void*) {}
void __tsan_func_exit() {}
void __tsan_vptr_read(void**) {}
void __tsan_vptr_update(void**, void*) {}
void __tsan_read_range(void* p, std::size_t n) { if (n) check(u64(p), u32(n), false, PC); }
void __tsan_write_range(void* p, std::size_t n) { if (n) check(u64(p), u32(n), true, PC); }

void cuda_emulator_copy(void* to, const void* from, std::size_t n) {
    if (n) check(u64(from), u32(n), false, PC), check(u64(to), u32(n), true, PC);
    std::memcpy(to, from, n);
}
void cuda_emulator_fill(void* to, int value, std::size_t n) {
    if (n) check(u64(to), u32(n), true, PC);
    std::memset(to, value, n);
}
void* __tsan_memcpy(void* to, const void* from, std::size_t n) { return cuda_emulator_copy(to, from, n), to; }
void* __tsan_memmove(void* to, const void* from, std::size_t n) {
    if (n) check(u64(from), u32(n), false, PC), check(u64(to), u32(n), true, PC);
    return std::memmove(to, from, n);
}
void* __tsan_memset(void* to, int value, std::size_t n) { return cuda_emulator_fill(to, value, n), to; }

void cuda_emulator_atomic(const void* address, int size) {
    u64 pc = PC;
    if (u64(address) % u32(size)) {
        Report report = about(MISALIGNED, pc);
        report.address = u64(address);
        report.size = u32(size);
        report.write = 1;
        fail(report);
    }
    check_atomic(u64(address), u32(size), pc);
    Worker* w = self()->worker;
    if (u64(address) - w->launch->arena < w->launch->arena_bytes) w->common->released[w->tag - 1].acquired = 1;
}

// -- what -fsanitize=alignment,bounds,shift,... reports ---------------------------------------------------------------

struct Place {
    const char* file;
    u32 line, column;
};
struct Type {
    u16 kind, info;
    char name[1];
};
struct With_type {
    Place place;
    const Type* type;
    const Type* second;
};
struct Mismatch {
    Place place;
    const Type* type;
    u8 log_alignment, how;
};

[[noreturn]] static void at(const Place& place, Kind kind, u64 address, const char* format, ...) {
    Report report = about(kind, 0);
    report.line = place.line;
    report.address = address;
    report.space = 1;
    std::snprintf(report.file, sizeof report.file, "%s", place.file ? place.file : "");
    va_list rest;
    va_start(rest, format);
    std::vsnprintf(report.text, sizeof report.text, format, rest);
    va_end(rest);
    fail(report);
}

// A value handed to the checks: itself when it fits a register, else its address; the kernel's indices always fit.
static long long signed_value(const Type* type, u64 value) {
    u32 bits = 1u << (type->info >> 1);
    if (bits >= 64 || !(type->info & 1)) return (long long)value;
    return (long long)(value << (64 - bits)) >> (64 - bits);
}

void __ubsan_handle_type_mismatch_v1(Mismatch* m, u64 pointer) {
    u64 alignment = u64(1) << m->log_alignment;
    if (pointer % alignment == 0) return;
    at(m->place, MISALIGNED, pointer, "%s must lie at a multiple of %llu bytes, this address is %llu past one",
       m->type->name, (unsigned long long)alignment, (unsigned long long)(pointer % alignment));
}
void __ubsan_handle_out_of_bounds(With_type* t, u64 index) {
    at(t->place, INDEX_OUT_OF_RANGE, 0, "index of an array of type %s is %lld", t->type->name,
       signed_value(t->second, index));
}
#define OVERFLOW(what, symbol)                                                                                        \
    void __ubsan_handle_##what(With_type* t, u64 a, u64 b) {                                                          \
        at(t->place, ARITHMETIC, 0, "%s overflows: %lld " symbol " %lld", t->type->name, signed_value(t->type, a),    \
           signed_value(t->type, b));                                                                                 \
    }
OVERFLOW(add_overflow, "+")
OVERFLOW(sub_overflow, "-")
OVERFLOW(mul_overflow, "*")
OVERFLOW(divrem_overflow, "/")
void __ubsan_handle_negate_overflow(With_type* t, u64 a) {
    at(t->place, ARITHMETIC, 0, "%s overflows: -(%lld)", t->type->name, signed_value(t->type, a));
}
void __ubsan_handle_shift_out_of_bounds(With_type* t, u64 a, u64 b) {
    at(t->place, ARITHMETIC, 0, "%s shifted too far: %lld by %lld", t->type->name, signed_value(t->type, a),
       signed_value(t->second, b));
}
}  // extern "C"
