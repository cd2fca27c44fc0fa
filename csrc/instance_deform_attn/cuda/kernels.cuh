// CUDA kernels of per-instance deformable attention.
//
// One thread serves one pixel of one instance; a block serves pixels of one instance only, whose
// vector it keeps in shared memory. The softmax over a head's points is computed on the way
// through them (running maximum and sum), so that nothing of a pixel needs memory. The backward
// pass computes the forward pass again, head by head and kD channels at a time: everything after
// the softmax is linear in the head's channels, so their gradients simply add up.
#pragma once

#include "common/cuda/device.h"

namespace queryseg {
namespace device {

constexpr int kMostSharedWeights = 1024;  // longer vectors stay in global memory
constexpr int kTilesPerBlock = 8;         // backward: a block's runs of kThreads pixels

struct InstanceDims {
  int64 instances;
  int64 batch;
  int height, width, channels, heads, points, row_channels, weights;
  int blocks;  // per instance
  // Where the layers start in an instance's vector; the offset weight comes first.
  int offset_bias, attn_weight, attn_bias, out_weight, out_bias;
};

template <typename A>
struct InstancePointers {
  const A* mask_feats;
  const A* dynamic_weights;
  const A* row_codes;
  const A* column_codes;
  const int64* image_index;
  const int64* valid_sizes;
};

__device__ __forceinline__ float exp_of(float x) {
  return expf(x);
}
__device__ __forceinline__ double exp_of(double x) {
  return exp(x);
}
__device__ __forceinline__ float floor_down(float x) {
  return floorf(x);
}
__device__ __forceinline__ double floor_down(double x) {
  return floor(x);
}

// The instance of a block, and the map it looks at.
template <typename A>
struct InstanceView {
  int64 instance;
  bool exists;  // its image does
  const A* map;
  int64 map_offset;
  int valid_height, valid_width;
  const A* rows;
  const A* columns;

  __device__ __forceinline__ InstanceView(const InstanceDims& dims, const InstancePointers<A>& from)
      : instance(blockIdx.x / dims.blocks) {
    int64 image = from.image_index ? from.image_index[instance] : 0;
    exists = image >= 0 && image < dims.batch;
    image = exists ? image : 0;
    map_offset = image * dims.height * dims.width * dims.channels;
    map = from.mask_feats + map_offset;
    valid_height = dims.height;
    valid_width = dims.width;
    if (from.valid_sizes) {
      valid_height = cut(from.valid_sizes[2 * image], dims.height);
      valid_width = cut(from.valid_sizes[2 * image + 1], dims.width);
    }
    rows = from.row_codes + instance * (dims.height + 1) * dims.row_channels;
    columns = from.column_codes + instance * (dims.width + 1) * (dims.channels - dims.row_channels);
  }
  static __device__ __forceinline__ int cut(int64 size, int most) {
    return size < 0 ? 0 : size < most ? static_cast<int>(size) : most;
  }
};

// The query of a pixel: kC channels in registers, or any number read where they are needed.
template <typename A, int kC>
struct Query {
  A z[kC > 0 ? kC : 1];
  const A* feats;
  const A* row_code;
  const A* column_code;
  int row_channels;

  __device__ __forceinline__ Query(const InstanceDims& dims, const InstanceView<A>& view, int row,
                                   int column)
      : row_channels(dims.row_channels) {
    const int coded_row = column < view.valid_width ? row : dims.height;
    const int coded_column = row < view.valid_height ? column : dims.width;
    feats = view.map + (static_cast<int64>(row) * dims.width + column) * dims.channels;
    row_code = view.rows + static_cast<int64>(coded_row) * row_channels;
    column_code = view.columns + static_cast<int64>(coded_column) * (dims.channels - row_channels);
    z[0] = A(0);
    if (kC > 0) {
#pragma unroll
      for (int c = 0; c < kC; ++c) {
        z[c] = read(c);
      }
    }
  }
  __device__ __forceinline__ A read(int c) const {
    return feats[c] + (c < row_channels ? row_code[c] : column_code[c - row_channels]);
  }
  __device__ __forceinline__ A operator[](int c) const { return kC > 0 ? z[c] : read(c); }

  __device__ __forceinline__ A project(const A* weight, A bias, int channels) const {
    A sum = bias;
    if (kC > 0) {
#pragma unroll
      for (int c = 0; c < kC; ++c) {
        sum += weight[c] * z[c];
      }
    } else {
      for (int c = 0; c < channels; ++c) {
        sum += weight[c] * read(c);
      }
    }
    return sum;
  }
};

// A sampling point in its cell, whose corners are read one channel group at a time.
template <typename A>
struct CellPoint {
  A fx, fy;
  int corner;  // element of the top left corner's channel 0
  int right, down;
  int flags;  // which corners lie in the valid area

  // Comparisons with NaN are false: such a point has no corners.
  __device__ __forceinline__ CellPoint(A x, A y, const InstanceDims& dims,
                                       const InstanceView<A>& view)
      : fx(0), fy(0), corner(0), right(dims.channels), down(dims.width * dims.channels), flags(0) {
    if (x > A(-1) && y > A(-1) && x < A(view.valid_width) && y < A(view.valid_height)) {
      const A left_edge = floor_down(x);
      const A top_edge = floor_down(y);
      const int left = static_cast<int>(left_edge);
      const int top = static_cast<int>(top_edge);
      const int columns = (left >= 0 ? 5 : 0) | (left + 1 < view.valid_width ? 10 : 0);
      const int rows = (top >= 0 ? 3 : 0) | (top + 1 < view.valid_height ? 12 : 0);
      fx = x - left_edge;
      fy = y - top_edge;
      corner = (top * dims.width + left) * dims.channels;
      flags = columns & rows;
    }
  }
  __device__ __forceinline__ int element(int i) const {
    return corner + (i & 1 ? right : 0) + (i & 2 ? down : 0);
  }
  __device__ __forceinline__ A weight(int i) const {
    return (i & 1 ? fx : A(1) - fx) * (i & 2 ? fy : A(1) - fy);
  }
  // kWhole: all kD channels exist and lie at a multiple of their size.
  template <bool kWhole, int kD>
  __device__ __forceinline__ void read(const A* map, int channel, int count,
                                       A (&corners)[4][kD]) const {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const A* const from = map + element(i) + channel;
#pragma unroll
      for (int d = 0; d < kD; ++d) {
        corners[i][d] = !kWhole && (flags >> i & 1) && d < count ? from[d] : A(0);
      }
      if (kWhole && (flags >> i & 1)) {
        load<kD>(from, corners[i]);
      }
    }
  }
  // Adds attn * weight(i) * grads to the map at corner i. A gradient of zero, as the ReLU leaves
  // it, stays zero whatever the weight is.
  template <bool kWhole, int kD>
  __device__ __forceinline__ void add(A* map, int channel, int i, A attn,
                                      const A (&grads)[kD]) const {
    A* const to = map + element(i) + channel;
    A addends[kD];
    bool any = false;
#pragma unroll
    for (int d = 0; d < kD; ++d) {
      const bool flows = grads[d] != A(0);
      any = any || flows;
      addends[d] = flows ? attn * weight(i) * grads[d] : A(0);
      if (!kWhole && flows) {
        atomicAdd(to + d, addends[d]);
      }
    }
    if (kWhole && any) {
      atomic_add(to, addends);
    }
  }
};

// One head's h for kD of its channels, with the softmax's maximum and sum.
template <typename A, int kD>
struct HeadChunk {
  A largest, sum;
  A h[kD];

  template <int kC>
  __device__ __forceinline__ HeadChunk(const InstanceDims& dims, const InstanceView<A>& view,
                                       const A* weights, const Query<A, kC>& query, int head,
                                       int channel, int count, A row, A column)
      : largest(0), sum(0), h() {
    for (int k = 0; k < dims.points; ++k) {
      const int point = head * dims.points + k;
      const A* to_x = weights + static_cast<int64>(2) * point * dims.channels;
      const A* to_attn = weights + dims.attn_weight + static_cast<int64>(point) * dims.channels;
      const A* bias = weights + dims.offset_bias + 2 * point;
      const A logit = query.project(to_attn, weights[dims.attn_bias + point], dims.channels);
      const CellPoint<A> at(column + query.project(to_x, bias[0], dims.channels),
                            row + query.project(to_x + dims.channels, bias[1], dims.channels), dims,
                            view);
      if (k == 0) {
        largest = logit;
      } else if (logit > largest) {
        const A shrink = exp_of(largest - logit);
        sum *= shrink;
#pragma unroll
        for (int d = 0; d < kD; ++d) {
          h[d] *= shrink;
        }
        largest = logit;
      }
      // A first logit of -infinity is the largest so far, but must not become exp(NaN).
      const A attn = logit == A(bits_float(0xff800000u)) ? A(0) : exp_of(logit - largest);
      sum += attn;
      A corners[4][kD];
      at.template read<(kC > 0)>(view.map, channel, count, corners);
#pragma unroll
      for (int i = 0; i < 4; ++i) {
#pragma unroll
        for (int d = 0; d < kD; ++d) {
          h[d] += attn * at.weight(i) * corners[i][d];
        }
      }
    }
#pragma unroll
    for (int d = 0; d < kD; ++d) {
      h[d] /= sum;
    }
  }
};

// The instance's vector: shared memory where it fits.
template <typename A>
__device__ __forceinline__ const A* share_weights(const InstanceDims& dims, const A* from,
                                                  A* shared) {
  if (dims.weights > kMostSharedWeights) {
    return from;
  }
  for (int i = threadIdx.x; i < dims.weights; i += blockDim.x) {
    shared[i] = from[i];
  }
  __syncthreads();
  return shared;
}

template <typename A, int kC, int kD>
__global__ void __launch_bounds__(kThreads)
    instance_forward_kernel(InstanceDims dims, InstancePointers<A> from, A* output) {
  __shared__ A shared[kMostSharedWeights];
  const InstanceView<A> view(dims, from);
  const A* weights =
      share_weights(dims, from.dynamic_weights + view.instance * dims.weights, shared);
  const int pixel = blockIdx.x % dims.blocks * blockDim.x + threadIdx.x;
  if (pixel >= dims.height * dims.width) {
    return;
  }
  const int row = pixel / dims.width;
  const int column = pixel - row * dims.width;
  const Query<A, kC> query(dims, view, row, column);
  const int head_channels = dims.channels / dims.heads;
  A logit = weights[dims.out_bias];
  for (int head = 0; head < dims.heads; ++head) {
    for (int first = 0; first < head_channels; first += kD) {
      const int channel = head * head_channels + first;
      const int count = head_channels - first;
      const HeadChunk<A, kD> chunk(dims, view, weights, query, head, channel, count, A(row),
                                   A(column));
#pragma unroll
      for (int d = 0; d < kD; ++d) {
        if (d < count) {
          const A active = chunk.h[d] < A(0) ? A(0) : chunk.h[d];  // keeps NaN
          logit += weights[dims.out_weight + channel + d] * active;
        }
      }
    }
  }
  const int64 at = view.instance * dims.height * dims.width + pixel;
  output[at] = view.exists ? logit : A(to_compute(bfloat16_t{0x7fc0}));  // NaN
}

// Adds each lane's items to sums[0..kItems) with one atomic addition per item and warp.
template <int kItems, typename A>
__device__ __forceinline__ void add_over_warp(A* sums, A (&items)[kItems], int count) {
  const int lane = threadIdx.x % 32;
  const A sum = group_sum_items<32>(items, lane);
  if (lane < kItems && lane < count) {
    atomicAdd(sums + lane, sum);
  }
}

// The gradients of one point's three projections by their weights and by the query.
template <typename A, int kC>
struct ProjectionGrads {
  const InstanceDims& dims;
  const A* weights;
  A* sums;
  const Query<A, kC>& query;
  A* grad_feats;  // of the pixel
  bool active;
  A grad_z[kC > 0 ? kC : 1];

  __device__ __forceinline__ void add(int point, A grad_x, A grad_y, A grad_logit) {
    const int64 to_x = static_cast<int64>(2) * point * dims.channels;
    const int64 to_y = to_x + dims.channels;
    const int64 to_attn = dims.attn_weight + static_cast<int64>(point) * dims.channels;
    A offset_biases[2] = {grad_x, grad_y};
    A attn_bias[1] = {grad_logit};
    add_over_warp(sums + dims.offset_bias + 2 * point, offset_biases, 2);
    add_over_warp(sums + dims.attn_bias + point, attn_bias, 1);
    add_layer(to_x, grad_x);
    add_layer(to_y, grad_y);
    add_layer(to_attn, grad_logit);
  }
  __device__ __forceinline__ void add_layer(int64 at, A grad) {
    constexpr int kItems = 8;
#pragma unroll
    for (int first = 0; first < (kC > 0 ? kC : dims.channels); first += kItems) {
      A items[kItems];
#pragma unroll
      for (int i = 0; i < kItems; ++i) {
        const int c = first + i;
        items[i] = A(0);
        if (c < dims.channels) {
          items[i] = grad * query[c];
          if (kC > 0) {
            grad_z[kC > 0 ? c : 0] += grad * weights[at + c];
          } else if (active) {
            atomicAdd(grad_feats + c, grad * weights[at + c]);
          }
        }
      }
      add_over_warp(sums + at + first, items, dims.channels - first);
    }
  }
};

// One head's channels [channel, channel + min(kD, count)) at one pixel, from the gradient of its
// logit to everything.
template <typename A, int kC, int kD>
__device__ __forceinline__ void differentiate_chunk(const InstanceDims& dims,
                                                    const InstanceView<A>& view,
                                                    ProjectionGrads<A, kC>& grads, int head,
                                                    int channel, int count, A row, A column, A grad,
                                                    A* grad_map) {
  const A* weights = grads.weights;
  const HeadChunk<A, kD> chunk(dims, view, weights, grads.query, head, channel, count, row, column);
  A grad_h[kD];
  A through = A(0);
#pragma unroll
  for (int d = 0; d < kD; ++d) {
    A out_weight[1] = {A(0)};
    grad_h[d] = A(0);
    if (d < count && chunk.h[d] > A(0)) {
      out_weight[0] = grad * chunk.h[d];
      grad_h[d] = grad * weights[dims.out_weight + channel + d];
      through += grad_h[d] * chunk.h[d];
    }
    if (d < count) {
      add_over_warp(grads.sums + dims.out_weight + channel + d, out_weight, 1);
    }
  }
  for (int k = 0; k < dims.points; ++k) {
    const int point = head * dims.points + k;
    const A* to_x = weights + static_cast<int64>(2) * point * dims.channels;
    const A* to_attn = weights + dims.attn_weight + static_cast<int64>(point) * dims.channels;
    const A* bias = weights + dims.offset_bias + 2 * point;
    const A logit = grads.query.project(to_attn, weights[dims.attn_bias + point], dims.channels);
    const A attn = exp_of(logit - chunk.largest) / chunk.sum;
    const CellPoint<A> at(column + grads.query.project(to_x, bias[0], dims.channels),
                          row + grads.query.project(to_x + dims.channels, bias[1], dims.channels),
                          dims, view);
    A corners[4][kD];
    at.template read<(kC > 0)>(view.map, channel, count, corners);
    A grad_x = A(0), grad_y = A(0), grad_attn = A(0);
#pragma unroll
    for (int d = 0; d < kD; ++d) {
      const A across = corners[1][d] - corners[0][d];
      const A across_below = corners[3][d] - corners[2][d];
      const A above = corners[0][d] + at.fx * across;
      const A down = corners[2][d] + at.fx * across_below - above;
      grad_x += grad_h[d] * (across + at.fy * (across_below - across));
      grad_y += grad_h[d] * down;
      grad_attn += grad_h[d] * (above + at.fy * down);
    }
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      if (at.flags >> i & 1) {
        at.template add<(kC > 0)>(grad_map, channel, i, attn, grad_h);
      }
    }
    grads.add(point, attn * grad_x, attn * grad_y, attn * (grad_attn - through));
  }
}

// The gradients must be zero before.
template <typename A, int kC, int kD>
__global__ void __launch_bounds__(kThreads)
    instance_backward_kernel(InstanceDims dims, InstancePointers<A> from, const A* grad_output,
                             A* grad_feats, A* grad_weights) {
  __shared__ A shared[kMostSharedWeights];
  __shared__ A shared_sums[kMostSharedWeights];
  const InstanceView<A> view(dims, from);
  const bool fits = dims.weights <= kMostSharedWeights;
  A* const result = grad_weights + view.instance * dims.weights;
  A* const sums = fits ? shared_sums : result;
  for (int i = threadIdx.x; fits && i < dims.weights; i += blockDim.x) {
    shared_sums[i] = A(0);
  }
  const A* weights =
      share_weights(dims, from.dynamic_weights + view.instance * dims.weights, shared);
  const int pixels = dims.height * dims.width;
  const int head_channels = dims.channels / dims.heads;
  const int first_pixel = blockIdx.x % dims.blocks * (kTilesPerBlock * blockDim.x);
  // All lanes stay: they take part in the sums. Those past the end have a gradient of zero.
  for (int tile = 0; tile < kTilesPerBlock; ++tile) {
    const int start = first_pixel + tile * blockDim.x;
    if (start >= pixels) {
      break;
    }
    int pixel = start + threadIdx.x;
    const bool active = pixel < pixels && view.exists;
    pixel = pixel < pixels ? pixel : pixels - 1;
    const int row = pixel / dims.width;
    const int column = pixel - row * dims.width;
    const A grad = active ? grad_output[view.instance * pixels + pixel] : A(0);
    const Query<A, kC> query(dims, view, row, column);
    A* const pixel_grads = grad_feats + view.map_offset + static_cast<int64>(pixel) * dims.channels;
    ProjectionGrads<A, kC> grads = {dims, weights, sums, query, pixel_grads, active, {}};
    A out_bias[1] = {grad};
    add_over_warp(sums + dims.out_bias, out_bias, 1);
    for (int head = 0; head < dims.heads; ++head) {
      for (int first = 0; first < head_channels; first += kD) {
        differentiate_chunk<A, kC, kD>(dims, view, grads, head, head * head_channels + first,
                                       head_channels - first, A(row), A(column), grad,
                                       grad_feats + view.map_offset);
      }
    }
    if (kC > 0 && active) {
      atomic_add(pixel_grads, grads.grad_z);
    }
  }
  __syncthreads();
  for (int i = threadIdx.x; fits && i < dims.weights; i += blockDim.x) {
    atomicAdd(result + i, shared_sums[i]);
  }
}

}  // namespace device
}  // namespace queryseg
