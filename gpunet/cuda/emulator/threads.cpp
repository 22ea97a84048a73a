// CUDA threads as fibers: a block's threads take turns on one operating-system thread.
//
// A thread runs until it waits (at a barrier, at a warp operation) or ends. The order of threads and of blocks comes
// from the seed, so that a kernel which is right only in one order shows it. Blocks may be spread over workers.

#include "runtime.h"

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <vector>

#if !defined(__x86_64__) || defined(GPUNET_UCONTEXT)
#define GPUNET_PORTABLE_SWITCH
#include <ucontext.h>
#endif

namespace cuda_emulator {

constexpr u64 CANARY = 0x6b6e7275656c6261ull;

// -- changing stacks -------------------------------------------------------------------------------------------------

#ifdef GPUNET_PORTABLE_SWITCH
static void make(Fiber* f, void (*start)()) {
    auto* context = new ucontext_t;
    getcontext(context);
    context->uc_stack.ss_sp = f + 1;
    context->uc_stack.ss_size = STACK - sizeof(Fiber);
    context->uc_link = nullptr;
    makecontext(context, start, 0);
    delete static_cast<ucontext_t*>(f->stack_pointer);
    f->stack_pointer = context;
}
static void into(Worker* w, Fiber* f) {
    if (!w->main_stack_pointer) w->main_stack_pointer = new ucontext_t;
    swapcontext(static_cast<ucontext_t*>(w->main_stack_pointer), static_cast<ucontext_t*>(f->stack_pointer));
}
static void back(Fiber* f) {
    swapcontext(static_cast<ucontext_t*>(f->stack_pointer), static_cast<ucontext_t*>(f->worker->main_stack_pointer));
}
#else
// Saves what a function must preserve, keeps the stack pointer in *save and goes on where `load` stopped.
extern "C" __attribute__((visibility("hidden"))) void cuda_emulator_switch(void** save, void* load);
asm(R"(
.text
.hidden cuda_emulator_switch
.globl cuda_emulator_switch
.type cuda_emulator_switch, @function
cuda_emulator_switch:
    pushq %rbp
    pushq %rbx
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq %rsp, (%rdi)
    movq %rsi, %rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbx
    popq %rbp
    ret
.size cuda_emulator_switch, .-cuda_emulator_switch
)");
static void make(Fiber* f, void (*start)()) {
    // Tops of stacks are shifted against each other: at one alignment they would fight for the same cache lines.
    u64 top = u64(f) + STACK - 128 - (f->number % 64) * 128;
    u64* slots = reinterpret_cast<u64*>(top);
    slots[-1] = 0;  // where `start` would return to; it never does
    slots[-2] = u64(start);
    for (int k = 3; k <= 8; ++k) slots[-k] = 0;
    f->stack_pointer = slots - 8;
}
static void into(Worker* w, Fiber* f) { cuda_emulator_switch(&w->main_stack_pointer, f->stack_pointer); }
static void back(Fiber* f) { cuda_emulator_switch(&f->stack_pointer, f->worker->main_stack_pointer); }
#endif

[[noreturn]] void leave() {
    back(self());
    std::abort();
}

[[noreturn]] void fail(Report& report) {
    Worker* w = self()->worker;
    report.shared_begin = report.space == 3 ? w->dynamic_begin : w->static_begin;
    {
        std::lock_guard guard(w->common->lock);
        if (!w->common->stop.exchange(true)) *w->common->report = report;
    }
    w->failed = true;
    leave();
}

// As fail, but called by the scheduler, on the worker's own stack.
void fail_outside(Worker* w, const Report& report) {
    std::lock_guard guard(w->common->lock);
    if (!w->common->stop.exchange(true)) *w->common->report = report;
    w->failed = true;
}

static u64 next_random(Worker* w) {
    w->random ^= w->random << 13;
    w->random ^= w->random >> 7;
    w->random ^= w->random << 17;
    return w->random;
}

// -- a block ---------------------------------------------------------------------------------------------------------

namespace {

bool same_place(const Fiber* a, const Fiber* b) { return a->line == b->line && std::strcmp(a->file, b->file) == 0; }

void open_barrier(Worker* w) {
    Fiber* one = fiber(w, 0);
    u64 count = 0;
    for (u32 t = 0; t < w->threads; ++t) {
        Fiber* f = fiber(w, t);
        if (!same_place(f, one)) {
            Report report = waiting(BARRIER_DIVERGENT, w, f);
            report.has_other = 1;
            report.other_block = w->block;
            report.other_thread = one->thread;
            say(report, "%s:%d", one->file, one->line);
            return fail_outside(w, report);
        }
        count += f->value;
    }
    for (u32 t = 0; t < w->threads; ++t) {
        Fiber* f = fiber(w, t);
        f->value = f->kind == 1 ? count : f->kind == 2 ? count == w->threads : count != 0;
        f->state = READY;
    }
    ++w->epoch;
}

const char* said(State state) {
    return state == DONE ? "has ended" : state == AT_BARRIER ? "waits at the barrier" : "waits at a warp operation";
}

// Nobody can go on: says who waits for whom.
void report_standstill(Worker* w) {
    Fiber *warp = nullptr, *barrier = nullptr, *other = nullptr;
    u32 there = 0;
    for (u32 t = 0; t < w->threads; ++t) {
        Fiber* f = fiber(w, t);
        if (f->state == AT_WARP && !warp) warp = f;
        if (f->state == AT_BARRIER && !barrier) barrier = f;
        if (f->state != AT_BARRIER && !other) other = f;
        there += f->state == AT_BARRIER;
    }
    Fiber* f = warp ? warp : barrier;
    Report report = waiting(warp ? WARP_LANES : BARRIER_NOT_REACHED, w, f);
    if (warp) {
        u32 first = f->number & ~31u;
        for (u32 lane = 0; lane < 32 && first + lane < w->threads; ++lane) {
            Fiber* g = fiber(w, first + lane);
            bool here = g->state == AT_WARP && g->kind == f->kind && g->mask == f->mask && g->line == f->line;
            if ((f->mask >> lane & 1) && g->state != DONE && !here) other = g;
        }
        const char* how = other->state == AT_WARP && other->mask != f->mask ? " with another mask," : ",";
        say(report, "mask 0x%08x names a lane that does not come: it %s%s %s:%d", f->mask, said(other->state), how,
            other->file, other->line);
    } else {
        say(report, "%u of %u threads are there; the other %s", there, w->threads, said(other->state));
    }
    report.has_other = 1;
    report.other_block = w->block;
    report.other_thread = other->thread;
    fail_outside(w, report);
}

void thread_main() {
    Fiber* f = self();
    f->worker->launch->entry(f->worker->launch->arguments);
    f->state = DONE;
    leave();
}

void prepare(Worker* w) {
    Index size = w->launch->block;
    for (u32 t = 0; t < w->threads; ++t) {
        Fiber* f = fiber(w, t);
        f->worker = w;
        f->number = t;
        f->thread = {t % size.x, t / size.x % size.y, t / (size.x * size.y)};
        f->state = READY;
        f->copies = f->group = 0;
        f->accesses = 0;
        f->file = "";
        f->line = 0;
        f->canary = CANARY;
        make(f, thread_main);
    }
}

}  // namespace

void run_block(Worker* w, u16* order) {
    ++w->epoch;
    prepare(w);
    for (u32 live = w->threads; live;) {
        bool moved = false;
        u32 waiting_here = 0;
        for (u32 k = w->threads; k > 1; --k) std::swap(order[k - 1], order[next_random(w) % k]);
        for (u32 k = 0; k < w->threads; ++k) {
            u32 t = order[k];
            Fiber* f = fiber(w, t);
            if (f->state == READY) {
                into(w, f);
                if (f->canary != CANARY && !w->failed) {
                    Report report = waiting(STACK_OVERFLOW, w, f);
                    fail_outside(w, report);
                }
                if (w->failed || w->common->stop.load(std::memory_order_relaxed)) return;
                moved = true;
                if (f->state == DONE) --live, w->accesses += f->accesses;
                if (f->state == AT_WARP) complete(w, f);
                if (w->failed) return;
            }
            waiting_here += f->state == AT_BARRIER;
        }
        if (waiting_here == w->threads) {
            open_barrier(w);
        } else if (!moved) {  // a lane that ended may have been the last that others waited for
            for (u32 t = 0; t < w->threads && !moved; ++t) {
                Fiber* f = fiber(w, t);
                moved = f->state == AT_WARP && complete(w, f);
            }
            if (!moved) report_standstill(w);
        }
        if (w->failed) return;
    }
}

}  // namespace cuda_emulator

using namespace cuda_emulator;

extern "C" {
Index cuda_emulator_thread_index() { return self()->thread; }
Index cuda_emulator_block_index() { return self()->worker->block; }
Index cuda_emulator_block_size() { return self()->worker->launch->block; }
Index cuda_emulator_grid_size() { return self()->worker->launch->grid; }
void* cuda_emulator_dynamic_shared() { return reinterpret_cast<void*>(self()->worker->dynamic_begin); }

unsigned cuda_emulator_active_lanes() {
    Fiber* f = self();
    u32 first = f->number & ~31u, lanes = 0;
    for (u32 lane = 0; lane < 32 && first + lane < f->worker->threads; ++lane)
        lanes |= u32(fiber(f->worker, first + lane)->state != DONE) << lane;
    return lanes;
}

static u64 wait(State state, const char* file, int line) {
    Fiber* f = self();
    f->file = file;
    f->line = line;
    f->state = state;
    back(f);
    return self()->value;
}

int cuda_emulator_barrier(int how, int predicate, const char* file, int line) {
    Fiber* f = self();
    f->kind = how;
    f->value = u64(predicate);
    return int(wait(AT_BARRIER, file, line));
}

u64 cuda_emulator_warp(int kind, unsigned mask, u64 value, int parameter, int width, const char* file, int line) {
    Fiber* f = self();
    if (!(mask >> (f->number & 31) & 1)) {
        Report report = about(WARP_LANES, 0);
        report.line = u32(line);
        std::snprintf(report.file, sizeof report.file, "%s", file);
        say(report, "lane %u calls, but mask 0x%08x does not name it", f->number & 31, mask);
        fail(report);
    }
    f->kind = kind;
    f->mask = mask;
    f->value = value;
    f->parameter = parameter;
    f->width = width;
    return wait(AT_WARP, file, line);
}

void cuda_emulator_fence() {
    Worker* w = self()->worker;
    w->common->released[w->tag - 1].epoch = w->epoch + 1;
}

void cuda_emulator_trap(const char* what, const char* file, int line) {
    Report report = about(TRAP, 0);
    report.line = u32(line);
    std::snprintf(report.file, sizeof report.file, "%s", file);
    say(report, "%s", what);
    fail(report);
}

// -- asynchronous copies: the target is filled when its thread waits for it, and not to be touched before ------------

void cuda_emulator_async_copy(void* to, const void* from, int bytes, int filled) {
    u64 pc = u64(__builtin_return_address(0));
    Fiber* f = self();
    if (f->copies == MAX_COPIES) cuda_emulator_trap("more asynchronous copies of a thread than are kept here", "", 0);
    if (u64(to) % u32(bytes) || (filled && u64(from) % u32(bytes))) {
        Report report = about(MISALIGNED, pc);
        report.address = u64(to) % u32(bytes) ? u64(to) : u64(from);
        report.size = u32(bytes);
        report.space = 1;
        say(report, "an asynchronous copy of %d bytes needs both addresses at multiples of it", bytes);
        fail(report);
    }
    if (filled) check(u64(from), u32(filled), false, pc);
    check_pending(u64(to), u32(bytes), pc);
    Worker* w = f->worker;
    f->copy[f->copies++] = {u64(to), u64(from), u32(bytes), u32(filled), f->group, u32(pc - w->launch->image)};
}

void cuda_emulator_async_commit() { ++self()->group; }

void cuda_emulator_async_wait(int groups_left) {
    Fiber* f = self();
    u32 kept = 0;
    for (u32 k = 0; k < f->copies; ++k) {
        Copy c = f->copy[k];
        if (groups_left && c.group + u32(groups_left) >= f->group) {
            f->copy[kept++] = c;
            continue;
        }
        finish_pending(c.to, c.bytes, f->worker->launch->image + c.pc);
        std::memset(reinterpret_cast<void*>(c.to), 0, c.bytes);
        std::memcpy(reinterpret_cast<void*>(c.to), reinterpret_cast<void*>(c.from), c.filled);
    }
    f->copies = kept;
}
}
