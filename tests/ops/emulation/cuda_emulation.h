// Runs CUDA kernels on the host, so that their arithmetic is tested on machines without a GPU.
//
// Each thread of a block is a fiber. Fibers switch only inside barriers and shuffles, which wait
// for the whole block or warp: a kernel in which some lanes skip a shuffle stops with a message
// here where it would be undefined on a GPU. Warps and their lanes run in ever another order, some
// warps straight to the next barrier before others begin, so that what one thread reads of another
// without a barrier comes out wrong. Blocks run one after the other.
#pragma once

#include <ucontext.h>

#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <type_traits>
#include <vector>

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __shared__ static
#define __launch_bounds__(...)

namespace emulation {

constexpr int kWarp = 32;
constexpr size_t kStack = size_t{256} << 10;

struct Index {
  unsigned int x;
};

struct Gate {  // where threads wait for each other
  int expected = 0;
  int arrived = 0;
  long generation = 0;
  long kind = -1;
};

struct Warp {
  Gate gate;
  unsigned char slots[kWarp][16];
  unsigned char results[kWarp][16];
};

struct Thread {
  ucontext_t context;
  std::unique_ptr<char[]> stack;
  bool finished = false;
};

struct Block {
  ucontext_t scheduler;
  std::vector<Thread> threads;
  std::vector<Warp> warps;
  Gate gate;
  long progress = 0;
};

inline Block* block;
inline int current;
inline Index thread_index, block_index, block_dim, grid_dim;

[[noreturn]] inline void fail(const char* message) {
  std::fprintf(stderr, "CUDA emulation: %s\n", message);
  std::abort();
}

inline void yield() {
  swapcontext(&block->threads[current].context, &block->scheduler);
}

// Passes when all expected threads have called it; the last one runs `complete`.
template <typename Complete>
void meet(Gate& gate, long kind, const Complete& complete) {
  if (gate.arrived == 0) {
    gate.kind = kind;
  } else if (gate.kind != kind) {
    fail("threads of a warp meet in different operations");
  }
  const long generation = gate.generation;
  ++block->progress;
  if (++gate.arrived == gate.expected) {
    complete();
    gate.arrived = 0;
    ++gate.generation;
    return;
  }
  while (gate.generation == generation) {
    yield();
  }
}

template <typename V>
V exchange(V value, int source, long kind) {
  static_assert(sizeof(V) <= 16);
  Warp& warp = block->warps[current / kWarp];
  const int lane = current % kWarp;
  std::memcpy(warp.slots[lane], &value, sizeof(V));
  meet(warp.gate, kind, [&] { std::memcpy(warp.results, warp.slots, sizeof(warp.slots)); });
  std::memcpy(&value, warp.results[source], sizeof(V));
  return value;
}

// Numbers without a pattern, the same in every run.
struct Dice {
  unsigned int state = 1;
  unsigned int roll() {
    state = 1664525 * state + 1013904223;
    return state >> 8;
  }
};

// Calls visit(i) for every i below `count`, a power of two, in some order.
template <typename Visit>
void in_some_order(unsigned int count, Dice& dice, const Visit& visit) {
  const unsigned int first = dice.roll(), step = dice.roll() | 1;
  for (unsigned int i = 0; i < count; ++i) {
    visit((first + i * step) % count);
  }
}

// Every thread of a warp as far as it comes alone; returns how many have finished.
inline unsigned int run_warp(Block& state, unsigned int warp, Dice& dice) {
  unsigned int finished = 0;
  in_some_order(kWarp, dice, [&](unsigned int lane) {
    current = static_cast<int>(warp * kWarp + lane);
    Thread& thread = state.threads[current];
    if (!thread.finished) {
      thread_index.x = current;
      swapcontext(&state.scheduler, &thread.context);
    }
    finished += thread.finished;
  });
  return finished;
}

// Runs kernel() for `blocks` blocks of `threads` threads.
template <typename Kernel>
void launch(unsigned int blocks, unsigned int threads, const Kernel& kernel) {
  static const Kernel* running;
  running = &kernel;
  if (threads % kWarp != 0 || (threads & (threads - 1)) != 0) {
    fail("blocks must be made of whole warps, a power of two of them");
  }
  Dice dice;
  block_dim.x = threads;
  grid_dim.x = blocks;
  for (block_index.x = 0; block_index.x < blocks; ++block_index.x) {
    Block state;
    block = &state;
    state.gate.expected = static_cast<int>(threads);
    state.warps.resize(threads / kWarp);
    for (Warp& warp : state.warps) {
      warp.gate.expected = kWarp;
    }
    state.threads.resize(threads);
    for (Thread& thread : state.threads) {
      thread.stack.reset(new char[kStack]);
      getcontext(&thread.context);
      thread.context.uc_stack.ss_sp = thread.stack.get();
      thread.context.uc_stack.ss_size = kStack;
      thread.context.uc_link = &state.scheduler;
      makecontext(&thread.context, static_cast<void (*)()>([] {
        (*running)();
        block->threads[current].finished = true;
        ++block->progress;
      }),
                  0);
    }
    for (unsigned int finished = 0; finished < threads;) {
      const long before = state.progress;
      finished = 0;
      in_some_order(threads / kWarp, dice, [&](unsigned int warp) {
        const bool straight = dice.roll() % 2 == 0;
        long reached;
        unsigned int of_warp;
        do {
          reached = state.progress;
          of_warp = run_warp(state, warp, dice);
        } while (straight && state.progress != reached);
        finished += of_warp;
      });
      if (state.progress == before && finished < threads) {
        fail("deadlock: some threads skipped a barrier or a shuffle");
      }
    }
  }
}

}  // namespace emulation

#define threadIdx emulation::thread_index
#define blockIdx emulation::block_index
#define blockDim emulation::block_dim
#define gridDim emulation::grid_dim

inline void __syncthreads() {
  emulation::meet(emulation::block->gate, 0, [] {});
}

template <typename V>
V __shfl_sync(unsigned int, V value, int lane, int width = emulation::kWarp) {
  const int own = emulation::current % emulation::kWarp;
  return emulation::exchange(value, own / width * width + lane % width, 1000 + sizeof(V));
}

template <typename V>
V __shfl_xor_sync(unsigned int, V value, int distance, int = emulation::kWarp) {
  const int own = emulation::current % emulation::kWarp;
  return emulation::exchange(value, own ^ distance, 2000 + distance);
}

inline float __fmul_rn(float a, float b) {
  return a * b;
}

inline double __dmul_rn(double a, double b) {
  return a * b;
}

template <typename A>
void atomicAdd(A* to, A value) {
  *to += value;
}

struct float2 {
  float x, y;
};

struct float4 {
  float x, y, z, w;
};

inline float2 make_float2(float x, float y) {
  return {x, y};
}

inline float4 make_float4(float x, float y, float z, float w) {
  return {x, y, z, w};
}

// As on sm_90.
inline void atomicAdd(float2* to, float2 value) {
  if (reinterpret_cast<uintptr_t>(to) % sizeof(float2) != 0) {
    emulation::fail("an atomic addition to two floats at a misaligned address");
  }
  atomicAdd(&to->x, value.x);
  atomicAdd(&to->y, value.y);
}

inline void atomicAdd(float4* to, float4 value) {
  if (reinterpret_cast<uintptr_t>(to) % sizeof(float4) != 0) {
    emulation::fail("an atomic addition to four floats at a misaligned address");
  }
  atomicAdd(&to->x, value.x);
  atomicAdd(&to->y, value.y);
  atomicAdd(&to->z, value.z);
  atomicAdd(&to->w, value.w);
}
