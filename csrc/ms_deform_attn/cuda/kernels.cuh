// CUDA kernels of multi-scale deformable attention.
//
// A group of kGroup lanes serves one (query, head), every lane N neighbouring channels at a time:
// one 16-byte load for each corner. The points are worked on kItems at a time: each lane locates
// one of them and hands it to the others by shuffles, so that the arithmetic of a point is not
// repeated by every channel. In the backward pass the point gradients are reduced over the lanes so
// that each lane ends up with those of the point it located.
#pragma once

#include "ms_deform_attn/cuda/points.cuh"

namespace queryseg {
namespace device {

template <typename T, typename A, int N, int kGroup, typename Source>
__global__ void __launch_bounds__(kThreads)
    forward_kernel(DeviceShape shape, Source source, const T* value, T* output) {
  constexpr int kItems = kGroup < 8 ? kGroup : 8;
  __shared__ DeviceLevel levels[kMaxLevels];
  share_levels(shape, levels);
  const Row<kGroup> row(shape);
  const int64 token_step = static_cast<int64>(shape.heads) * shape.channels;
  const T* image = value + row.value_offset(shape);
  const int count = shape.levels * shape.points;
  auto head = source.template begin<kGroup>(shape, row);
  for (int first = 0; first < shape.channels; first += kGroup * N) {
    const int channel = first + row.lane * N;
    const bool active = channel < shape.channels;
    A total[N] = {};
    for (int p = 0; p < count; p += kItems) {
      Located<A> own = {A(0), A(0), A(0), 0, 0};
      const int mine = p + row.lane % kItems;
      if (mine < count) {
        const int level = mine / shape.points;
        own = head.read(mine, level, levels[level]);
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
        Loaded<T, N> samples[4] = {};
#pragma unroll
        for (int corner = 0; corner < 4; ++corner) {
          if (active && (point.flags >> corner & 1)) {
            samples[corner] = *reinterpret_cast<const Loaded<T, N>*>(corners[corner]);
          }
        }
#pragma unroll
        for (int corner = 0; corner < 4; ++corner) {
#pragma unroll
          for (int i = 0; i < N; ++i) {
            total[i] += weights[corner] * samples[corner].value(i);
          }
        }
      }
    }
    if (active && row.exists) {
      store<N>(output + row.index * shape.channels + channel, total);
    }
  }
}

// kWhole: kGroup * N divides the channels.
template <typename T, typename A, int N, int kGroup, bool kWhole, typename Source>
__global__ void __launch_bounds__(kThreads)
    backward_kernel(DeviceShape shape, Source source, const T* value, const T* grad_output,
                    A* grad_value) {
  constexpr int kItems = kGroup < 8 ? kGroup : 8;
  using Share = AtomicShare<A, N, kGroup, kWhole>;
  __shared__ DeviceLevel levels[kMaxLevels];
  share_levels(shape, levels);
  const Row<kGroup> row(shape);
  const int64 token_step = static_cast<int64>(shape.heads) * shape.channels;
  const int64 image = row.value_offset(shape);
  const int count = shape.levels * shape.points;
  auto head = source.template begin<kGroup>(shape, row);
  for (int p = 0; p < count; p += kItems) {
    Located<A> own = {A(0), A(0), A(0), 0, 0};
    const int mine = p + row.lane % kItems;
    if (mine < count) {
      const int level = mine / shape.points;
      own = head.read(mine, level, levels[level]);
    }
    A grad_x[kItems] = {};
    A grad_y[kItems] = {};
    A grad_attn[kItems] = {};
    for (int first = 0; first < shape.channels; first += kGroup * N) {
      const int channel = first + row.lane * N;
      const bool active = (kWhole || channel < shape.channels) && row.exists;
      const T* const grads = grad_output + row.index * shape.channels + first;
      A grad[N] = {};
      if (active) {
        load<N>(grads + row.lane * N, grad);
      }
      const Share share = {row.lane, shape.channels - first};
      A shared_grad[Share::kPieces][Share::kPiece];
      share.load(grads, shared_grad);
#pragma unroll
      for (int item = 0; item < kItems; ++item) {
        const Located<A> point = located_by<kGroup>(own, item);
        const int64 upper = image + point.token * token_step + first;
        const int64 lower = upper + (point.flags >> 4) * token_step;
        const int64 corners[4] = {upper, upper + token_step, lower, lower + token_step};
        const A weights[4] = {(A(1) - point.fx) * (A(1) - point.fy), point.fx * (A(1) - point.fy),
                              (A(1) - point.fx) * point.fy, point.fx * point.fy};
        Loaded<T, N> samples[4] = {};
#pragma unroll
        for (int corner = 0; corner < 4; ++corner) {
          if (active && (point.flags >> corner & 1)) {
            const T* const from = value + corners[corner] + row.lane * N;
            samples[corner] = *reinterpret_cast<const Loaded<T, N>*>(from);
          }
        }
        A products[4] = {};
#pragma unroll
        for (int corner = 0; corner < 4; ++corner) {
#pragma unroll
          for (int i = 0; i < N; ++i) {
            products[corner] += grad[i] * samples[corner].value(i);
          }
          if (row.exists && (point.flags >> corner & 1)) {
            share.add(grad_value + corners[corner], point.attn * weights[corner], shared_grad);
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
      const int level = mine / shape.points;
      head.write_grads(mine, level, levels[level], own, own.attn * sum_x, own.attn * sum_y,
                       sum_attn);
    }
  }
  head.template finish<kItems>(shape, row);
}

}  // namespace device
}  // namespace queryseg
