// CUDA kernels of the dynamic convolution.
//
// A block takes a tile of an instance's positions through both products and both norms: what lies
// between the features and the result stays in shared memory. In the backward pass it does so
// again, then goes back to the features; the gradients of the weights, which need all positions of
// an instance, are products of their own over what the blocks have left behind. Nothing is added
// atomically, so that results do not depend on the order of the blocks.
#pragma once

#include "common/cuda/device.h"

// Shared memory whose size the launch says.
#ifndef QUERYSEG_DYNAMIC_SHARED
#define QUERYSEG_DYNAMIC_SHARED(name) extern __shared__ __align__(16) unsigned char name[]
#endif

namespace queryseg {
namespace device {

constexpr int kConvThreads = 128;
constexpr int kConvWarps = kConvThreads / 32;
// A tile of a product, and what of it a thread computes.
constexpr int kTileRows = 32;
constexpr int kTileColumns = 64;
constexpr int kTileDepth = 16;
constexpr int kThreadRows = 4;
constexpr int kThreadColumns = 4;
constexpr int kColumnThreads = kTileColumns / kThreadColumns;
static_assert(kTileRows / kThreadRows * kColumnThreads == kConvThreads, "all threads, once each");

struct ConvDims {
  int64 instances;
  int positions;
  int channels;
  int inner;
  int rows;   // positions of a tile, at most kTileRows
  int tiles;  // of an instance
  bool as_map;
};

template <typename T, typename A>
struct ConvInputs {
  const T* features;
  const T* dynamic_weights;
  const A* norm_in_weight;
  const A* norm_in_bias;
  const A* norm_out_weight;
  const A* norm_out_bias;
  A eps;
};

// What the blocks of the backward pass leave for the gradients of weights and norms.
template <typename A>
struct ConvScratch {
  A* hidden;      // (N, T, d)
  A* grad_inner;  // (N, T, d), gradient of the first product
  A* grad_outer;  // (N, T, C), gradient of the second product
  A* shares;      // (N, tiles, 2 * d + 2 * C)
};

__device__ __forceinline__ float reciprocal_root(float value) {
  return 1.0f / sqrtf(value);
}
__device__ __forceinline__ double reciprocal_root(double value) {
  return 1.0 / sqrt(value);
}

// A factor of a product: element (i, k) at start[i * step + k * depth_step], where i counts the
// rows of the left or the columns of the right factor.
template <typename T>
struct Factor {
  const T* start;
  int64 step;
  int64 depth_step;
};

template <typename A>
struct Stage {
  A left[kTileDepth][kTileRows + 1];
  A right[kTileDepth][kTileColumns + 1];
};

// Copies elements [first, first + kCount) x [depth, depth + kTileDepth) of a factor to shared
// memory, zeros beyond its end. Neighbouring threads read neighbouring addresses.
template <int kCount, typename T, typename A>
__device__ __forceinline__ void stage_factor(const Factor<T>& factor, int first, int count,
                                             int depth, int whole_depth, A (*to)[kCount + 1]) {
  const bool depth_first = factor.depth_step == 1;
  for (int i = threadIdx.x; i < kCount * kTileDepth; i += kConvThreads) {
    const int item = depth_first ? i / kTileDepth : i % kCount;
    const int k = depth_first ? i % kTileDepth : i / kCount;
    const bool inside = first + item < count && depth + k < whole_depth;
    to[k][item] =
        inside ? A(to_compute(
                     factor.start[(first + item) * factor.step + (depth + k) * factor.depth_step]))
               : A(0);
  }
}

// store(row, column, sum over k of left(row, k) * right(k, column)) for all rows and columns. All
// threads of the block call it; it begins and ends with a barrier.
template <typename L, typename R, typename A, typename Store>
__device__ __forceinline__ void multiply(const Factor<L>& left, int rows, const Factor<R>& right,
                                         int columns, int depth, Stage<A>& stage,
                                         const Store& store) {
  const int thread_row = static_cast<int>(threadIdx.x) / kColumnThreads * kThreadRows;
  const int thread_column = static_cast<int>(threadIdx.x) % kColumnThreads;
  for (int first_row = 0; first_row < rows; first_row += kTileRows) {
    for (int first_column = 0; first_column < columns; first_column += kTileColumns) {
      A sums[kThreadRows][kThreadColumns] = {};
      for (int first_k = 0; first_k < depth; first_k += kTileDepth) {
        __syncthreads();
        stage_factor<kTileRows>(left, first_row, rows, first_k, depth, stage.left);
        stage_factor<kTileColumns>(right, first_column, columns, first_k, depth, stage.right);
        __syncthreads();
#pragma unroll
        for (int k = 0; k < kTileDepth; ++k) {
          A weights[kThreadRows], values[kThreadColumns];
#pragma unroll
          for (int i = 0; i < kThreadRows; ++i) {
            weights[i] = stage.left[k][thread_row + i];
          }
#pragma unroll
          for (int j = 0; j < kThreadColumns; ++j) {
            values[j] = stage.right[k][thread_column + j * kColumnThreads];
          }
#pragma unroll
          for (int i = 0; i < kThreadRows; ++i) {
#pragma unroll
            for (int j = 0; j < kThreadColumns; ++j) {
              sums[i][j] += weights[i] * values[j];
            }
          }
        }
      }
#pragma unroll
      for (int i = 0; i < kThreadRows; ++i) {
#pragma unroll
        for (int j = 0; j < kThreadColumns; ++j) {
          const int row = first_row + thread_row + i;
          const int column = first_column + thread_column + j * kColumnThreads;
          if (row < rows && column < columns) {
            store(row, column, sums[i][j]);
          }
        }
      }
    }
  }
  __syncthreads();
}

// A layer norm over rows of `size` values in shared memory; one warp a row.
template <typename A>
struct ConvNorm {
  const A* weight;
  const A* bias;
  int size;
  A eps;

  // Takes mean and deviation out of all rows; keeps what each row was scaled by.
  __device__ __forceinline__ void standardise(A* values, int rows, A* scales) const {
    const int lane = threadIdx.x % 32;
    for (int row = threadIdx.x / 32; row < rows; row += kConvWarps) {
      A* const of_row = values + row * size;
      A sum = A(0);
      for (int i = lane; i < size; i += 32) {
        sum += of_row[i];
      }
      const A mean = group_sum<32>(sum) / A(size);
      A squares = A(0);
      for (int i = lane; i < size; i += 32) {
        const A centred = of_row[i] - mean;
        squares += centred * centred;
      }
      const A scale = reciprocal_root(group_sum<32>(squares) / A(size) + eps);
      for (int i = lane; i < size; i += 32) {
        of_row[i] = (of_row[i] - mean) * scale;
      }
      if (lane == 0) {
        scales[row] = scale;
      }
    }
    __syncthreads();
  }

  __device__ __forceinline__ A affine(A standardised, int i) const {
    return standardised * weight[i] + bias[i];
  }

  // ReLU(norm) of a standardised value; NaN stays.
  __device__ __forceinline__ A activate(A standardised, int i) const {
    const A value = affine(standardised, i);
    return value < A(0) ? A(0) : value;
  }

  // Of the gradient of the result at value i of a row, what passes the ReLU.
  template <typename G>
  __device__ __forceinline__ A passed(G grad, A standardised, int i) const {
    return affine(standardised, i) > A(0) ? A(to_compute(grad)) : A(0);
  }

  // From the gradient of the results of standardised rows to that of what was given to
  // `standardise`, in their place. `shares` gets the gradients of weight and bias.
  template <typename G>
  __device__ __forceinline__ void differentiate(A* values, int rows, const A* scales,
                                                const G* grads, A* shares) const {
    for (int i = threadIdx.x; i < size; i += kConvThreads) {
      A by_weight = A(0), by_bias = A(0);
      for (int row = 0; row < rows; ++row) {
        const A standardised = values[row * size + i];
        const A grad = passed(grads[static_cast<int64>(row) * size + i], standardised, i);
        by_weight += grad * standardised;
        by_bias += grad;
      }
      shares[i] = by_weight;
      shares[size + i] = by_bias;
    }
    __syncthreads();
    const int lane = threadIdx.x % 32;
    for (int row = threadIdx.x / 32; row < rows; row += kConvWarps) {
      A* const of_row = values + row * size;
      const G* const grad_row = grads + static_cast<int64>(row) * size;
      A sum = A(0), along = A(0);
      for (int i = lane; i < size; i += 32) {
        const A grad = passed(grad_row[i], of_row[i], i) * weight[i];
        sum += grad;
        along += grad * of_row[i];
      }
      const A mean = group_sum<32>(sum) / A(size);
      const A slope = group_sum<32>(along) / A(size);
      for (int i = lane; i < size; i += 32) {
        const A grad = passed(grad_row[i], of_row[i], i) * weight[i];
        of_row[i] = scales[row] * (grad - mean - of_row[i] * slope);
      }
    }
    __syncthreads();
  }
};

// The tile of positions that a block works on, and its arrays in shared memory.
template <typename T, typename A>
struct ConvTile {
  int64 instance;
  int number;  // among the tiles of the instance
  int first;   // position
  int rows;
  Factor<T> features;
  const T* w_in;   // (C, d)
  const T* w_out;  // (d, C)
  ConvNorm<A> norm_in, norm_out;

  __device__ __forceinline__ ConvTile(const ConvDims& dims, const ConvInputs<T, A>& from)
      : instance(blockIdx.x / dims.tiles),
        number(static_cast<int>(blockIdx.x % dims.tiles)),
        first(number * dims.rows),
        rows(dims.positions - first < dims.rows ? dims.positions - first : dims.rows),
        features(features_of(dims, from.features, instance)),
        w_in(from.dynamic_weights + instance * 2 * dims.channels * dims.inner),
        w_out(w_in + static_cast<int64>(dims.channels) * dims.inner),
        norm_in{from.norm_in_weight, from.norm_in_bias, dims.inner, from.eps},
        norm_out{from.norm_out_weight, from.norm_out_bias, dims.channels, from.eps} {
    features.start += first * features.step;
  }

  static __device__ __forceinline__ Factor<T> features_of(const ConvDims& dims, const T* all,
                                                          int64 instance) {
    const T* start = all + instance * dims.positions * dims.channels;
    if (dims.as_map) {
      return {start, 1, dims.positions};
    }
    return {start, dims.channels, 1};
  }
};

template <typename A>
struct ConvShared {
  Stage<A>* stage;
  A* scales;  // (kTileRows,)
  A* inner;   // (rows, d)
  A* outer;   // (rows, C)
  A* grad;    // (rows, d), backward only

  __device__ __forceinline__ ConvShared(const ConvDims& dims, unsigned char* memory)
      : stage(reinterpret_cast<Stage<A>*>(memory)),
        scales(reinterpret_cast<A*>(memory + sizeof(Stage<A>))),
        inner(scales + kTileRows),
        outer(inner + dims.rows * dims.inner),
        grad(outer + dims.rows * dims.channels) {}
};

// Shared memory of a block for tiles of `rows` positions.
template <typename A>
QUERYSEG_HD int64 conv_shared_bytes(int64 rows, int64 channels, int64 inner, bool backward) {
  return static_cast<int64>(sizeof(Stage<A>)) +
         static_cast<int64>(sizeof(A)) *
             (kTileRows + rows * (channels + inner + (backward ? inner : 0)));
}

template <typename T, typename A>
__global__ void __launch_bounds__(kConvThreads)
    conv_forward_kernel(ConvDims dims, ConvInputs<T, A> from, T* output) {
  QUERYSEG_DYNAMIC_SHARED(memory);
  const ConvShared<A> shared(dims, memory);
  const ConvTile<T, A> tile(dims, from);
  const int channels = dims.channels, inner = dims.inner;
  multiply(tile.features, tile.rows, Factor<T>{tile.w_in, 1, inner}, inner, channels, *shared.stage,
           [&](int row, int column, A sum) { shared.inner[row * inner + column] = sum; });
  tile.norm_in.standardise(shared.inner, tile.rows, shared.scales);
  for (int i = threadIdx.x; i < tile.rows * inner; i += kConvThreads) {
    shared.inner[i] = tile.norm_in.activate(shared.inner[i], i % inner);
  }
  multiply(Factor<A>{shared.inner, inner, 1}, tile.rows, Factor<T>{tile.w_out, 1, channels},
           channels, inner, *shared.stage,
           [&](int row, int column, A sum) { shared.outer[row * channels + column] = sum; });
  tile.norm_out.standardise(shared.outer, tile.rows, shared.scales);
  T* const to = output + (tile.instance * dims.positions + tile.first) * channels;
  for (int i = threadIdx.x; i < tile.rows * channels; i += kConvThreads) {
    to[i] = Rounding<T>::to(tile.norm_out.activate(shared.outer[i], i % channels));
  }
}

// Gradients of the features; leaves in `scratch` what the other gradients are made of.
template <typename T, typename A>
__global__ void __launch_bounds__(kConvThreads)
    conv_backward_kernel(ConvDims dims, ConvInputs<T, A> from, const T* grad_output,
                         T* grad_features, ConvScratch<A> scratch) {
  QUERYSEG_DYNAMIC_SHARED(memory);
  const ConvShared<A> shared(dims, memory);
  const ConvTile<T, A> tile(dims, from);
  const int channels = dims.channels, inner = dims.inner;
  const int64 position = tile.instance * dims.positions + tile.first;
  A* const hidden = scratch.hidden + position * inner;
  A* const shares =
      scratch.shares + (tile.instance * dims.tiles + tile.number) * (2 * (inner + channels));
  multiply(tile.features, tile.rows, Factor<T>{tile.w_in, 1, inner}, inner, channels, *shared.stage,
           [&](int row, int column, A sum) { shared.inner[row * inner + column] = sum; });
  A* const inner_scales = shared.scales;
  tile.norm_in.standardise(shared.inner, tile.rows, inner_scales);
  for (int i = threadIdx.x; i < tile.rows * inner; i += kConvThreads) {
    const A value = tile.norm_in.activate(shared.inner[i], i % inner);
    hidden[i] = value;
    shared.grad[i] = value;  // a factor in shared memory, until the gradient takes its place
  }
  multiply(Factor<A>{shared.grad, inner, 1}, tile.rows, Factor<T>{tile.w_out, 1, channels},
           channels, inner, *shared.stage,
           [&](int row, int column, A sum) { shared.outer[row * channels + column] = sum; });
  // The stage is free until the next product.
  A* const outer_scales = shared.stage->left[0];
  tile.norm_out.standardise(shared.outer, tile.rows, outer_scales);
  tile.norm_out.differentiate(shared.outer, tile.rows, outer_scales,
                              grad_output + position * channels, shares + 2 * inner);
  for (int i = threadIdx.x; i < tile.rows * channels; i += kConvThreads) {
    scratch.grad_outer[position * channels + i] = shared.outer[i];
  }
  multiply(Factor<A>{shared.outer, channels, 1}, tile.rows, Factor<T>{tile.w_out, channels, 1},
           inner, channels, *shared.stage,
           [&](int row, int column, A sum) { shared.grad[row * inner + column] = sum; });
  tile.norm_in.differentiate(shared.inner, tile.rows, inner_scales, shared.grad, shares);
  for (int i = threadIdx.x; i < tile.rows * inner; i += kConvThreads) {
    scratch.grad_inner[position * inner + i] = shared.inner[i];
  }
  const Factor<T> place = tile.features;
  T* const to = grad_features + (place.start - from.features);
  multiply(Factor<A>{shared.inner, inner, 1}, tile.rows, Factor<T>{tile.w_in, inner, 1}, channels,
           inner, *shared.stage, [&](int row, int column, A sum) {
             to[row * place.step + column * place.depth_step] = Rounding<T>::to(sum);
           });
}

// Gradients of the dynamic weights: blocks [0, N) those of W_in, the other N those of W_out.
template <typename T, typename A>
__global__ void __launch_bounds__(kConvThreads)
    conv_weights_kernel(ConvDims dims, const T* features, ConvScratch<A> scratch, T* grad_weights) {
  __shared__ Stage<A> stage;
  const int64 instance = blockIdx.x % dims.instances;
  const int channels = dims.channels, inner = dims.inner;
  const int64 position = instance * dims.positions;
  T* const to = grad_weights + instance * 2 * channels * inner;
  if (blockIdx.x < dims.instances) {
    const Factor<T> rows = ConvTile<T, A>::features_of(dims, features, instance);
    multiply(Factor<T>{rows.start, rows.depth_step, rows.step}, channels,
             Factor<A>{scratch.grad_inner + position * inner, 1, inner}, inner, dims.positions,
             stage, [&](int row, int column, A sum) {
               to[static_cast<int64>(row) * inner + column] = Rounding<T>::to(sum);
             });
    return;
  }
  T* const to_out = to + static_cast<int64>(channels) * inner;
  multiply(Factor<A>{scratch.hidden + position * inner, 1, inner}, inner,
           Factor<A>{scratch.grad_outer + position * channels, 1, channels}, channels,
           dims.positions, stage, [&](int row, int column, A sum) {
             to_out[static_cast<int64>(row) * channels + column] = Rounding<T>::to(sum);
           });
}

// Adds up the tiles' shares of the norms' gradients, in their order.
template <typename A>
__global__ void __launch_bounds__(kConvThreads)
    conv_norms_kernel(ConvDims dims, const A* shares, A* norm_shares) {
  const int values = 2 * (dims.inner + dims.channels);
  for (int i = threadIdx.x; i < values; i += kConvThreads) {
    A sum = A(0);
    for (int tile = 0; tile < dims.tiles; ++tile) {
      sum += shares[(static_cast<int64>(blockIdx.x) * dims.tiles + tile) * values + i];
    }
    norm_shares[static_cast<int64>(blockIdx.x) * values + i] = sum;
  }
}

}  // namespace device
}  // namespace queryseg
