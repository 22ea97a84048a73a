// What memory.cpp and threads.cpp share: the launch as Python describes it, the fibers, the shadow of memory.
// Launch, Buffer and Report are mirrored field by field in native.py.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <mutex>

namespace cuda_emulator {

using u8 = std::uint8_t;
using u16 = std::uint16_t;
using u32 = std::uint32_t;
using u64 = std::uint64_t;

struct Index {
    u32 x, y, z;
};

enum Kind : u32 {
    NOTHING, OUT_OF_BOUNDS, SHARED_OUT_OF_BOUNDS, INDEX_OUT_OF_RANGE, UNINITIALISED, RACE, MISALIGNED, CONST_WRITE,
    BARRIER_DIVERGENT, BARRIER_NOT_REACHED, WARP_LANES, PENDING_COPY, ARITHMETIC, STACK_OVERFLOW, TRAP, ENDLESS,
    FINER_SHADOW,  // not an error: start again with one shadow cell for each byte of shared memory
};

// One argument array (or several that overlap), as it lies in the arena.
struct Buffer {
    u64 begin, bytes;
    u32 granule;     // bytes behind one shadow cell, as a power of two
    u32 writable;
    const u8* fresh; // per byte, nonzero where nothing has been written yet; may be null
    u8* written;     // per cell, set where the launch writes; may be null
};

struct Report {
    u32 kind, line;
    char file[160], text[224];
    u64 pc, other_pc, address, shared_begin;
    u32 size, write, other_write, space;  // space: 0 elsewhere, 1 global, 2 static shared, 3 dynamic shared
    Index block, thread, other_block, other_thread;
    u32 has_other, buffer;
};

struct Launch {
    void (*entry)(void** arguments);
    void** arguments;
    Index grid, block;
    u64 seed, limit;  // limit: memory accesses of one thread before it counts as endless
    u64 arena, arena_bytes;
    const Buffer* buffers;
    u32 buffer_count, workers;
    u32 dynamic_bytes, shared_granule;  // shared_granule: as Buffer::granule, for shared memory
    u64 image, image_bytes;             // where the compiled kernels lie, filled in by the runtime
    u64 accesses;                       // counted by the runtime
};

// What is known of one granule of memory. Blocks are counted from 1 here; 0 says never.
struct alignas(32) Cell {
    u32 writer_block, writer_epoch, reader_block, reader_epoch;
    u16 writer, reader;            // thread in its block, or one of the marks below
    u16 writer_step, reader_step;  // how often the warp had synchronised
    u32 writer_pc, reader_pc;      // relative to the image
};

constexpr u32 FRESH = 0xffffffffu;       // as writer_block: global memory nobody has written yet
constexpr u32 SEVERAL = 0xffffffffu;     // as reader_block: read by more than one block
constexpr u16 ATOMIC = 0x2000;           // flag on writer: written atomically, by this thread alone so far
constexpr u16 ATOMIC_SEVERAL = 0x3fff;   // written atomically by several threads
constexpr u16 LANES = 0x4000;            // flag on reader: several lanes of the warp in the low bits
constexpr u16 WARPS = 0x8000;            // read by several warps
constexpr u16 PENDING = 0xffff;          // as writer_step: an asynchronous copy is on its way here
constexpr u32 STACK = 1u << 16;          // bytes of a fiber, its record included; also its alignment
constexpr u32 MAX_THREADS = 1024;
constexpr u32 MAX_COPIES = 64;           // asynchronous copies of one thread that are under way

struct Worker;

enum State : u32 { READY, AT_BARRIER, AT_WARP, DONE };

struct Copy {
    u64 to, from;
    u32 bytes, filled, group, pc;
};

// One CUDA thread. It lies at the lowest address of its own stack, so the stack pointer finds it.
struct Fiber {
    Worker* worker;
    void* stack_pointer;
    Index thread;
    u32 number;
    State state;
    const char* file;  // where it waits
    int line;
    int kind;  // of the warp operation, or of the barrier
    u32 mask;
    int parameter, width;
    u64 value;
    u64 accesses;
    u32 copies, group;  // asynchronous copies under way, and the number of the open group
    Copy copy[MAX_COPIES];
    u64 canary;
};

struct Released {
    std::atomic<u32> epoch;     // of the block's last device-wide fence
    std::atomic<u32> acquired;  // the block has looked at others through an atomic
};

// One operating-system thread, running one block at a time.
struct Worker {
    Launch* launch;
    struct Shared_state* common;
    void* main_stack_pointer;
    u8* stacks;
    Index block;
    u32 tag, epoch, threads;
    u16 step[MAX_THREADS / 32];
    u64 static_begin, static_bytes, dynamic_begin, dynamic_bytes;
    Cell *static_cells, *dynamic_cells;
    u32 last_buffer;
    u64 accesses, random;
    bool failed;
};

// What all workers of a launch share.
struct Shared_state {
    Launch* launch;
    Report* report;
    Cell** cells;  // per buffer
    Released* released;
    std::mutex lock;
    std::atomic<bool> stop;
    std::atomic<u64> next_block;
};

inline Fiber* self() {
    return reinterpret_cast<Fiber*>(reinterpret_cast<u64>(__builtin_frame_address(0)) & ~u64(STACK - 1));
}
inline u64 linear(Index at, Index size) { return at.x + u64(size.x) * (at.y + u64(size.y) * at.z); }

// Leaves the kernel for good; the first report of a launch is the one that counts.
[[noreturn]] void fail(Report& report);
[[noreturn]] void leave();
// The same, said by the scheduler on the worker's own stack.
void fail_outside(Worker* w, const Report& report);

inline Fiber* fiber(Worker* w, u32 number) { return reinterpret_cast<Fiber*>(w->stacks + u64(number) * STACK); }
Report waiting(Kind kind, Worker* w, Fiber* f);
bool complete(Worker* w, Fiber* f);
void run_block(Worker* w, u16* order);  // order: the block's threads, shuffled in place

// Puts words into a report.
__attribute__((format(printf, 2, 3))) void say(Report& report, const char* format, ...);

Report about(Kind kind, u64 pc);
void check(u64 address, u32 size, bool write, u64 pc);
void check_atomic(u64 address, u32 size, u64 pc);
void check_pending(u64 address, u32 size, u64 pc);
void finish_pending(u64 address, u32 size, u64 pc);

}  // namespace cuda_emulator
