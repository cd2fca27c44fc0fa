// CUDA kernels of sparse RoIAlign.
//
// A warp serves one node, every lane N neighbouring channels at a time, so that each pixel is one
// coalesced read. All lanes follow the same samples: nothing diverges. Neighbouring nodes read
// neighbouring pixels, which the caches hold.
#pragma once

#include "common/cuda/device.h"

namespace queryseg {
namespace device {

constexpr int kMaxMaps = 16;
constexpr int kWarp = 32;

template <typename T>
struct FeatureMap {  // T is const for reading
  T* pixels;         // (B, H, W, C)
  int height;
  int width;
};

template <typename T, typename A>
struct NodeArgs {
  int64 nodes;
  int64 images;
  int64 instances;
  int64 levels;
  int maps;
  int channels;
  const A* windows;    // (N, G, 4): top, left, height and width of a cell
  const int64* bins;   // (N, G, 4): image, map, sample rows and sample columns
  const int64* index;  // (T, 3)
  const int64* level;  // (T,)
  FeatureMap<T> map[kMaxMaps];
};

// A sample along one axis: two pixels and how far it lies towards the second.
template <typename A>
struct Sample {
  int low, high;
  A inside;
  bool on_map;
};

// Comparisons with NaN are false: such a sample is off the map.
template <typename A>
__device__ __forceinline__ Sample<A> sample_at(A at, int size) {
  Sample<A> sample = {0, 0, A(0), at >= A(-1) && at <= A(size)};
  if (sample.on_map) {
    at = at > A(0) ? at : A(0);
    const int low = static_cast<int>(at);
    const bool last = low >= size - 1;
    sample.low = last ? size - 1 : low;
    sample.high = last ? size - 1 : low + 1;
    sample.inside = last ? A(0) : at - A(low);
  }
  return sample;
}

// One node's cell. A node whose numbers point outside the arrays gets no samples.
template <typename T, typename A>
struct NodeCell {
  FeatureMap<T> map = {nullptr, 0, 0};
  int64 row_samples = 0, column_samples = 0;
  A top = A(0), left = A(0), height = A(0), width = A(0);
  int64 first_pixel = 0;

  __device__ __forceinline__ NodeCell(const NodeArgs<T, A>& args, int64 node) {
    const int64* index = args.index + 3 * node;
    const int64 level = args.level[node];
    if (index[0] < 0 || index[0] >= args.instances || level < 0 || level >= args.levels) {
      return;
    }
    const int64 window = index[0] * args.levels + level;
    const int64* bin = args.bins + 4 * window;
    if (bin[0] < 0 || bin[0] >= args.images || bin[1] < 0 || bin[1] >= args.maps) {
      return;
    }
    const A* place = args.windows + 4 * window;
    map = args.map[bin[1]];
    row_samples = bin[2];
    column_samples = bin[3];
    height = place[2];
    width = place[3];
    // As in the CPU kernel.
    top = place[0] + product(A(index[1]), height);
    left = place[1] + product(A(index[2]), width);
    first_pixel = bin[0] * map.height * map.width;
  }

  __device__ __forceinline__ Sample<A> row(int64 i) const {
    return sample_at(top + (A(i) + A(0.5)) * height / A(row_samples), map.height);
  }
  __device__ __forceinline__ Sample<A> column(int64 i) const {
    return sample_at(left + (A(i) + A(0.5)) * width / A(column_samples), map.width);
  }

  // Calls visit(pixel, weight) for the corners of all samples; weights sum to one at most.
  template <typename Visit>
  __device__ __forceinline__ void for_corners(const Visit& visit) const {
    const A share = A(1) / (A(row_samples) * A(column_samples));
    for (int64 i = 0; i < row_samples; ++i) {
      const Sample<A> y = row(i);
      if (!y.on_map) {
        continue;
      }
      const int64 upper = first_pixel + static_cast<int64>(y.low) * map.width;
      const int64 lower = first_pixel + static_cast<int64>(y.high) * map.width;
      for (int64 j = 0; j < column_samples; ++j) {
        const Sample<A> x = column(j);
        if (!x.on_map) {
          continue;
        }
        const A below = share * y.inside;
        const A above = share - below;
        visit(upper + x.low, above - above * x.inside);
        visit(upper + x.high, above * x.inside);
        visit(lower + x.low, below - below * x.inside);
        visit(lower + x.high, below * x.inside);
      }
    }
  }
};

template <typename T, typename A, int N>
__global__ void __launch_bounds__(kThreads) gather_kernel(NodeArgs<const T, A> args, T* output) {
  const int64 thread = static_cast<int64>(blockIdx.x) * blockDim.x + threadIdx.x;
  const int64 node = thread / kWarp;
  if (node >= args.nodes) {
    return;
  }
  const NodeCell<const T, A> cell(args, node);
  for (int channel = static_cast<int>(thread % kWarp) * N; channel < args.channels;
       channel += kWarp * N) {
    A total[N] = {};
    cell.for_corners([&](int64 pixel, A weight) {
      if (weight != A(0)) {  // what is stored there must not leak if it is a NaN
        A value[N];
        load<N>(cell.map.pixels + pixel * args.channels + channel, value);
#pragma unroll
        for (int i = 0; i < N; ++i) {
          total[i] += weight * value[i];
        }
      }
    });
    store<N>(output + node * args.channels + channel, total);
  }
}

// kWhole: kWarp * N divides the channels.
template <typename T, typename A, int N, bool kWhole>
__global__ void __launch_bounds__(kThreads)
    spread_kernel(NodeArgs<A, A> args, const T* grad_output) {
  const int64 thread = static_cast<int64>(blockIdx.x) * blockDim.x + threadIdx.x;
  const int64 node = thread / kWarp;
  if (node >= args.nodes) {
    return;
  }
  const NodeCell<A, A> cell(args, node);
  using Share = AtomicShare<A, N, kWarp, kWhole>;
  for (int first = 0; first < args.channels; first += kWarp * N) {
    const Share share = {static_cast<int>(thread % kWarp), args.channels - first};
    A grad[Share::kPieces][Share::kPiece];
    share.load(grad_output + node * args.channels + first, grad);
    cell.for_corners([&](int64 pixel, A weight) {
      if (weight != A(0)) {
        share.add(cell.map.pixels + pixel * args.channels + first, weight, grad);
      }
    });
  }
}

}  // namespace device
}  // namespace queryseg
