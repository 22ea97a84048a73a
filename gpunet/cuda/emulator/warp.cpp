// Warp operations: who takes part, who gets whose value, and what is refused.

#include "runtime.h"

#include <cstdio>

namespace cuda_emulator {

enum { SYNC, SHFL, SHFL_UP, SHFL_DOWN, SHFL_XOR, BALLOT, ANY, ALL, MATCH, ADD, MIN, MAX, AND, OR, XOR, MIN_S, MAX_S };

Report waiting(Kind kind, Worker* w, Fiber* f) {
    Report report{};
    report.kind = kind;
    report.block = w->block;
    report.thread = f->thread;
    report.line = u32(f->line);
    std::snprintf(report.file, sizeof report.file, "%s", f->file);
    return report;
}

static int source_lane(const Fiber* f, int lane) {
    int first = lane & ~(f->width - 1), behind = first + f->width, from = lane;
    if (f->kind == SHFL) from = first | (f->parameter & (f->width - 1));
    if (f->kind == SHFL_UP) from = lane - f->parameter < first ? lane : lane - f->parameter;
    if (f->kind == SHFL_DOWN) from = lane + f->parameter >= behind ? lane : lane + f->parameter;
    if (f->kind == SHFL_XOR) from = (lane ^ f->parameter) >= behind ? lane : lane ^ f->parameter;
    return from;
}

static u64 combined(int kind, Fiber* const* lanes, u32 members, u64 own) {
    u64 result = kind == ALL || kind == AND || kind == MIN ? ~u64(0) : 0;
    std::int32_t lowest = INT32_MAX, highest = INT32_MIN;
    for (int lane = 0; lane < 32; ++lane) {
        if (!(members >> lane & 1)) continue;
        u64 v = lanes[lane]->value;
        if (kind == BALLOT) result |= (v != 0 ? u64(1) : 0) << lane;
        if (kind == MATCH) result |= (v == own ? u64(1) : 0) << lane;
        if (kind == ANY || kind == OR) result |= v;
        if (kind == ALL || kind == AND) result &= v;
        if (kind == ADD) result += v;
        if (kind == XOR) result ^= v;
        if (kind == MIN) result = v < result ? v : result;
        if (kind == MAX) result = v > result ? v : result;
        lowest = std::int32_t(v) < lowest ? std::int32_t(v) : lowest;
        highest = std::int32_t(v) > highest ? std::int32_t(v) : highest;
    }
    if (kind == MIN_S) return u32(lowest);
    if (kind == MAX_S) return u32(highest);
    return kind == ANY || kind == ALL ? result != 0 : result;
}

// Finishes the operation that `f` waits at if every live lane of its mask has come; true if so.
bool complete(Worker* w, Fiber* f) {
    u32 first = f->number & ~31u, members = 0;
    Fiber* lanes[32] = {};
    for (u32 lane = 0; lane < 32 && first + lane < w->threads; ++lane) {
        lanes[lane] = fiber(w, first + lane);
        if (!(f->mask >> lane & 1) || lanes[lane]->state == DONE) continue;
        Fiber* g = lanes[lane];
        bool here = g->state == AT_WARP && g->kind == f->kind && g->mask == f->mask && g->line == f->line;
        if (!here) return false;
        members |= 1u << lane;
    }
    u64 results[32];
    for (int lane = 0; lane < 32; ++lane) {
        if (!(members >> lane & 1)) continue;
        Fiber* g = lanes[lane];
        if (g->kind == SYNC || g->kind > SHFL_XOR) {
            results[lane] = combined(g->kind, lanes, members, g->value);
            continue;
        }
        int from = source_lane(g, lane);
        if (from < 0 || from > 31 || !(members >> from & 1)) {
            Report report = waiting(WARP_LANES, w, g);
            say(report, "lane %d reads lane %d, which takes no part (mask 0x%08x)", lane, from, g->mask);
            fail_outside(w, report);
            return true;
        }
        results[lane] = lanes[from]->value;
    }
    if (f->kind == SYNC) w->step[first / 32] = u16((w->step[first / 32] + 1) % 65000);
    for (int lane = 0; lane < 32; ++lane)
        if (members >> lane & 1) lanes[lane]->value = results[lane], lanes[lane]->state = READY;
    return true;
}

}  // namespace cuda_emulator
