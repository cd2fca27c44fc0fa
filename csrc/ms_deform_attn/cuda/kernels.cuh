// CUDA kernels of multi-scale deformable attention.
//
// A group of kGroup lanes serves one (query, head), every lane N neighbouring channels at a time:
// one 16-byte load for each corner. The points are worked on kItems at a time: each lane locates
// one of them and hands it to the others by shuffles, so that the arithmetic of a point is not
// repeated by every channel. In the backward pass the point gradients are reduced over the lanes so
// that each lane ends up with those of the point it located.
#pragma once

#include "common/cuda/device.h"

namespace queryseg {
namespace device {

constexpr int kMaxLevels = 64;

struct DeviceLevel {
  int start;
  int height;
  int width;
};

struct DeviceShape {
  int64 rows;  // B * Q * M
  int64 tokens;
  int64 queries;
  int heads;
  int channels;
  int levels;
  int points;  // per level
  DeviceLevel level[kMaxLevels];
};

// A point on its map: four weights before the attention weight is applied follow from fx and fy.
template <typename A>
struct Located {
  A fx, fy, attn;
  int token;  // top left corner, counted from the image's first token
  int flags;  // bits 0-3: which corners lie on the map; above: the map's width
};

template <typename A>
__device__ __forceinline__ A floor_of(A x) {
  return sizeof(A) == 4 ? static_cast<A>(floorf(static_cast<float>(x)))
                        : static_cast<A>(floor(static_cast<double>(x)));
}

// From pixel coordinates to a cell. Comparisons with NaN are false: such a point has no corners.
template <typename A>
__device__ __forceinline__ Located<A> locate(A x, A y, A attn, const DeviceLevel& level) {
  Located<A> point = {A(0), A(0), attn, 0, 0};
  if (x > A(-1) && y > A(-1) && x < A(level.width) && y < A(level.height)) {
    const A left_edge = floor_of(x);
    const A top_edge = floor_of(y);
    const int left = static_cast<int>(left_edge);
    const int top = static_cast<int>(top_edge);
    const int columns = (left >= 0 ? 5 : 0) | (left + 1 < level.width ? 10 : 0);
    const int rows = (top >= 0 ? 3 : 0) | (top + 1 < level.height ? 12 : 0);
    point.fx = x - left_edge;
    point.fy = y - top_edge;
    point.token = level.start + top * level.width + left;
    point.flags = (level.width << 4) | (columns & rows);
  }
  return point;
}

// Sampling points given as normalised locations and weights.
template <typename A>
struct PlainSource {
  const A* locations;
  const A* weights;
  A* grad_locations;
  A* grad_weights;

  __device__ __forceinline__ Located<A> read(int64 index, const DeviceLevel& level) const {
    const Pack<A, 2> at = reinterpret_cast<const Pack<A, 2>*>(locations)[index];
    return locate(at.v[0] * A(level.width) - A(0.5), at.v[1] * A(level.height) - A(0.5),
                  weights[index], level);
  }
  __device__ __forceinline__ void write_grads(int64 index, const DeviceLevel& level, A grad_x,
                                              A grad_y, A grad_attn) const {
    const Pack<A, 2> grad = {{grad_x * A(level.width), grad_y * A(level.height)}};
    reinterpret_cast<Pack<A, 2>*>(grad_locations)[index] = grad;
    grad_weights[index] = grad_attn;
  }
};

// Copies the levels to shared memory, where lanes may each read another one.
__device__ __forceinline__ void share_levels(const DeviceShape& shape, DeviceLevel* shared) {
  for (int i = threadIdx.x; i < shape.levels; i += blockDim.x) {
    shared[i] = shape.level[i];
  }
  __syncthreads();
}

// What lane `item` of the group located.
template <int kGroup, typename A>
__device__ __forceinline__ Located<A> located_by(const Located<A>& own, int item) {
  Located<A> point;
  point.fx = from_lane<kGroup>(own.fx, item);
  point.fy = from_lane<kGroup>(own.fy, item);
  point.attn = from_lane<kGroup>(own.attn, item);
  point.token = from_lane<kGroup>(own.token, item);
  point.flags = from_lane<kGroup>(own.flags, item);
  return point;
}

// Which (query, head) a group works on; groups past the end repeat the last one and write nothing.
template <int kGroup>
struct Row {
  int lane;
  int64 index;
  bool exists;

  __device__ __forceinline__ explicit Row(const DeviceShape& shape)
      : lane(threadIdx.x % kGroup),
        index((static_cast<int64>(blockIdx.x) * blockDim.x + threadIdx.x) / kGroup),
        exists(index < shape.rows) {
    index = exists ? index : shape.rows - 1;
  }
  // Offset of the head's first token in the value.
  __device__ __forceinline__ int64 value_offset(const DeviceShape& shape) const {
    const int64 query = divide(index, shape.heads);
    const int64 image = divide(query, shape.queries);
    const int64 head = index - query * shape.heads;
    return (image * shape.tokens * shape.heads + head) * shape.channels;
  }
};

template <typename T, typename A, int N, int kGroup>
__global__ void __launch_bounds__(kThreads)
    forward_kernel(DeviceShape shape, PlainSource<A> source, const T* value, T* output) {
  constexpr int kItems = kGroup < 8 ? kGroup : 8;
  __shared__ DeviceLevel levels[kMaxLevels];
  share_levels(shape, levels);
  const Row<kGroup> row(shape);
  const int64 token_step = static_cast<int64>(shape.heads) * shape.channels;
  const T* image = value + row.value_offset(shape);
  const int count = shape.levels * shape.points;
  for (int first = 0; first < shape.channels; first += kGroup * N) {
    const int channel = first + row.lane * N;
    const bool active = channel < shape.channels;
    A total[N] = {};
    for (int p = 0; p < count; p += kItems) {
      Located<A> own = {A(0), A(0), A(0), 0, 0};
      const int mine = p + row.lane % kItems;
      if (mine < count) {
        own = source.read(row.index * count + mine, levels[mine / shape.points]);
      }
#pragma unroll
      for (int item = 0; item < kItems; ++item) {
        const Located<A> point = located_by<kGroup>(own, item);
        const T* upper = image + point.token * token_step + channel;
        const T* lower = upper + (point.flags >> 4) * token_step;
        const T* corners[4] = {upper, upper + token_step, lower, lower + token_step};
        const A below = point.attn * point.fy;
        const A above = point.attn - below;
        const A weights[4] = {above - above * point.fx, above * point.fx, below - below * point.fx,
                              below * point.fx};
        // All loads first, so that they are under way together.
        Pack<T, N> samples[4] = {};
#pragma unroll
        for (int corner = 0; corner < 4; ++corner) {
          if (active && (point.flags >> corner & 1)) {
            samples[corner] = *reinterpret_cast<const Pack<T, N>*>(corners[corner]);
          }
        }
#pragma unroll
        for (int corner = 0; corner < 4; ++corner) {
#pragma unroll
          for (int i = 0; i < N; ++i) {
            total[i] += weights[corner] * to_compute(samples[corner].v[i]);
          }
        }
      }
    }
    if (active && row.exists) {
      store<N>(output + row.index * shape.channels + channel, total);
    }
  }
}

template <typename T, typename A, int N, int kGroup>
__global__ void __launch_bounds__(kThreads)
    backward_kernel(DeviceShape shape, PlainSource<A> source, const T* value, const T* grad_output,
                    A* grad_value) {
  constexpr int kItems = kGroup < 8 ? kGroup : 8;
  __shared__ DeviceLevel levels[kMaxLevels];
  share_levels(shape, levels);
  const Row<kGroup> row(shape);
  const int64 token_step = static_cast<int64>(shape.heads) * shape.channels;
  const int64 image = row.value_offset(shape);
  const int count = shape.levels * shape.points;
  for (int p = 0; p < count; p += kItems) {
    Located<A> own = {A(0), A(0), A(0), 0, 0};
    const int mine = p + row.lane % kItems;
    if (mine < count) {
      own = source.read(row.index * count + mine, levels[mine / shape.points]);
    }
    A grad_x[kItems] = {};
    A grad_y[kItems] = {};
    A grad_attn[kItems] = {};
    for (int first = 0; first < shape.channels; first += kGroup * N) {
      const int channel = first + row.lane * N;
      const bool active = channel < shape.channels && row.exists;
      A grad[N] = {};
      if (active) {
        load<N>(grad_output + row.index * shape.channels + channel, grad);
      }
#pragma unroll
      for (int item = 0; item < kItems; ++item) {
        const Located<A> point = located_by<kGroup>(own, item);
        const int64 upper = image + point.token * token_step + channel;
        const int64 lower = upper + (point.flags >> 4) * token_step;
        const int64 corners[4] = {upper, upper + token_step, lower, lower + token_step};
        const A weights[4] = {(A(1) - point.fx) * (A(1) - point.fy), point.fx * (A(1) - point.fy),
                              (A(1) - point.fx) * point.fy, point.fx * point.fy};
        Pack<T, N> samples[4] = {};
#pragma unroll
        for (int corner = 0; corner < 4; ++corner) {
          if (active && (point.flags >> corner & 1)) {
            samples[corner] = *reinterpret_cast<const Pack<T, N>*>(value + corners[corner]);
          }
        }
        A products[4] = {};
#pragma unroll
        for (int corner = 0; corner < 4; ++corner) {
          A addend[N];
#pragma unroll
          for (int i = 0; i < N; ++i) {
            products[corner] += grad[i] * to_compute(samples[corner].v[i]);
            addend[i] = point.attn * weights[corner] * grad[i];
          }
          if (active && (point.flags >> corner & 1)) {
            atomic_add<N>(grad_value + corners[corner], addend);
          }
        }
        const A above = products[0] + point.fx * (products[1] - products[0]);
        const A below = products[2] + point.fx * (products[3] - products[2]);
        const A across_above = products[1] - products[0];
        const A across_below = products[3] - products[2];
        grad_x[item] += across_above + point.fy * (across_below - across_above);
        grad_y[item] += below - above;
        grad_attn[item] += above + point.fy * (below - above);
      }
    }
    const A sum_x = group_sum_items<kGroup>(grad_x, row.lane);
    const A sum_y = group_sum_items<kGroup>(grad_y, row.lane);
    const A sum_attn = group_sum_items<kGroup>(grad_attn, row.lane);
    if (row.exists && row.lane < kItems && mine < count) {
      source.write_grads(row.index * count + mine, levels[mine / shape.points], own.attn * sum_x,
                         own.attn * sum_y, sum_attn);
    }
  }
}

}  // namespace device
}  // namespace queryseg
