// A launch: workers take blocks in the order that the seed says, until all are done or one has failed.

#include "runtime.h"

#include <algorithm>
#include <cstdlib>
#include <link.h>
#include <sys/mman.h>
#include <thread>
#include <vector>

namespace cuda_emulator {
namespace {

thread_local volatile char touched;  // makes the loader give this thread its copy of the shared arrays

struct Found {
    Worker* worker;
    u64 inside;
};

int look_at_image(dl_phdr_info* info, std::size_t, void* data) {
    auto* found = static_cast<Found*>(data);
    u64 low = ~u64(0), high = 0;
    const ElfW(Phdr)* tls = nullptr;
    for (int k = 0; k < info->dlpi_phnum; ++k) {
        const auto& part = info->dlpi_phdr[k];
        if (part.p_type == PT_TLS) tls = &part;
        if (part.p_type != PT_LOAD) continue;
        low = std::min(low, u64(info->dlpi_addr + part.p_vaddr));
        high = std::max(high, u64(info->dlpi_addr + part.p_vaddr + part.p_memsz));
    }
    if (found->inside - low >= high - low) return 0;
    found->worker->launch->image = low;
    found->worker->launch->image_bytes = high - low;
    if (tls && info->dlpi_tls_data) {
        found->worker->static_begin = u64(info->dlpi_tls_data);
        found->worker->static_bytes = tls->p_memsz;
    }
    return 1;
}

std::mutex pool_lock;
std::vector<u8*> pool;  // stacks of earlier workers

u8* take_stacks() {
    std::lock_guard guard(pool_lock);
    if (!pool.empty()) {
        u8* stacks = pool.back();
        pool.pop_back();
        return stacks;
    }
    u64 bytes = u64(MAX_THREADS + 1) * STACK;
    void* all = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (all == MAP_FAILED) std::abort();
    return reinterpret_cast<u8*>((u64(all) + STACK - 1) & ~u64(STACK - 1));
}

u64 stride_over(u64 blocks, u64 seed) {
    if (!seed || blocks < 3) return 1;
    u64 stride = 1 + (seed * 0x9e3779b97f4a7c15ull) % (blocks - 1);
    auto divisor = [](u64 a, u64 b) { while (b) { u64 rest = a % b; a = b; b = rest; } return a; };
    while (divisor(stride, blocks) != 1) ++stride;
    return stride;
}

void work(Shared_state* common, u32 number) {
    Launch* launch = common->launch;
    Worker w{};
    w.launch = launch;
    w.common = common;
    w.threads = u32(u64(launch->block.x) * launch->block.y * launch->block.z);
    w.random = (launch->seed + 1) * 0x9e3779b97f4a7c15ull + number;
    w.epoch = 1;
    touched = 1;
    Found found{&w, u64(&look_at_image)};
    dl_iterate_phdr(look_at_image, &found);
    std::vector<u8> dynamic(launch->dynamic_bytes + 1024, 0xff);
    w.dynamic_begin = (u64(dynamic.data()) + 1023) & ~u64(1023);
    w.dynamic_bytes = launch->dynamic_bytes;
    w.static_cells = static_cast<Cell*>(std::calloc((w.static_bytes >> launch->shared_granule) + 1, sizeof(Cell)));
    w.dynamic_cells = static_cast<Cell*>(std::calloc((w.dynamic_bytes >> launch->shared_granule) + 1, sizeof(Cell)));
    w.stacks = take_stacks();
    std::vector<u16> order(w.threads);
    for (u32 t = 0; t < w.threads; ++t) order[t] = u16(t);
    u64 blocks = u64(launch->grid.x) * launch->grid.y * launch->grid.z, stride = stride_over(blocks, launch->seed);
    for (u64 k; !common->stop && (k = common->next_block++) < blocks;) {
        u64 b = u64((static_cast<unsigned __int128>(k) * stride + launch->seed) % blocks);
        w.tag = u32(b + 1);
        u64 row = b / launch->grid.x;
        w.block = {u32(b % launch->grid.x), u32(row % launch->grid.y), u32(row / launch->grid.y)};
        run_block(&w, order.data());
    }
    std::lock_guard guard(pool_lock);
    launch->accesses += w.accesses;
    pool.push_back(w.stacks);
    std::free(w.static_cells);
    std::free(w.dynamic_cells);
}

Cell* shadow_of(const Buffer& buffer) {
    u64 count = (buffer.bytes >> buffer.granule) + 1;
    Cell* cells = static_cast<Cell*>(std::calloc(count, sizeof(Cell)));
    if (!cells) std::abort();
    if (buffer.fresh)
        for (u64 k = 0; k + 1 < count; ++k)
            if (buffer.fresh[k << buffer.granule]) cells[k].writer_block = FRESH;
    return cells;
}

}  // namespace
}  // namespace cuda_emulator

using namespace cuda_emulator;

#define OPEN __attribute__((visibility("default")))

extern "C" {
OPEN void cuda_emulator_launch(Launch* launch, Report* report) {
    Shared_state common{};
    common.launch = launch;
    common.report = report;
    u64 blocks = u64(launch->grid.x) * launch->grid.y * launch->grid.z;
    std::vector<Released> released(blocks);
    std::vector<Cell*> cells(launch->buffer_count);
    for (u32 k = 0; k < launch->buffer_count; ++k) cells[k] = shadow_of(launch->buffers[k]);
    common.released = released.data();
    common.cells = cells.data();
    std::vector<std::thread> others;
    for (u32 k = 1; k < launch->workers; ++k) others.emplace_back(work, &common, k);
    work(&common, 0);
    for (auto& each : others) each.join();
    for (Cell* each : cells) std::free(each);
}

OPEN uint64_t cuda_emulator_sizes(int which) {
    return which == 0 ? sizeof(Launch) : which == 1 ? sizeof(Buffer) : sizeof(Report);
}
}  // extern "C"
