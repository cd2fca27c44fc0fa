// Sampling points given as reference points and as what the linear layers put out: offsets and
// logits. Neither locations nor softmaxed weights leave the registers.
#pragma once

#include "common/value_type.h"
#include "ms_deform_attn/cuda/points.cuh"

namespace queryseg {
namespace device {

template <typename A>
__device__ __forceinline__ A exp_of(A x) {
  return sizeof(A) == 4 ? static_cast<A>(expf(static_cast<float>(x)))
                        : static_cast<A>(exp(static_cast<double>(x)));
}

// Element `index` of an array of a type known at run time: double beside doubles, else narrower.
template <typename A>
__device__ __forceinline__ A load_as(const void* data, int64 index, ValueType type) {
  if (sizeof(A) == 8) {
    return static_cast<const A*>(data)[index];
  }
  switch (type) {
    case ValueType::kHalf:
      return static_cast<A>(to_compute(static_cast<const half_t*>(data)[index]));
    case ValueType::kBFloat16:
      return static_cast<A>(to_compute(static_cast<const bfloat16_t*>(data)[index]));
    default:
      return static_cast<A>(static_cast<const float*>(data)[index]);
  }
}

template <typename A>
__device__ __forceinline__ void store_as(void* data, int64 index, ValueType type, A value) {
  if (sizeof(A) == 8) {
    static_cast<A*>(data)[index] = value;
    return;
  }
  const float narrow = static_cast<float>(value);
  switch (type) {
    case ValueType::kHalf:
      static_cast<half_t*>(data)[index] = Rounding<half_t>::to(narrow);
      return;
    case ValueType::kBFloat16:
      static_cast<bfloat16_t*>(data)[index] = Rounding<bfloat16_t>::to(narrow);
      return;
    default:
      static_cast<float*>(data)[index] = narrow;
  }
}

// As QueryRows of ms_deform_attn.h.
struct DeviceRows {
  const void* data;
  ValueType type;
  int64 image_step;
  int64 query_step;

  template <typename A>
  __device__ __forceinline__ A load(int64 image, int64 query, int64 place) const {
    return load_as<A>(data, image * image_step + query * query_step + place, type);
  }
};

template <typename A>
struct FusedSource {
  const A* reference;
  int64 reference_steps[4];
  int reference_dim;
  DeviceRows offsets;
  DeviceRows logits;
  A* grad_reference;  // (B, Q, L, K), zero-filled, added to atomically; null if nobody asks for it
  void* grad_offsets;
  A* grad_logits;  // of the compute type

  // The points of one (query, head).
  struct Head {
    const FusedSource& source;
    int64 image, query, first;  // first point within (M, L, P)
    int64 out;                  // and within (B, Q, M, L, P)
    int64 grad_row;             // (image, query) within (B, Q)
    int levels, points;
    A largest, scale;  // weight = exp(logit - largest) * scale
    A mean;            // sum of weight * gradient over the points of this lane

    __device__ __forceinline__ A weight(int point) const {
      return exp_of(source.logits.template load<A>(image, query, first + point) - largest) * scale;
    }
    __device__ __forceinline__ A offset(int point, int axis) const {
      return source.offsets.template load<A>(image, query, 2 * (first + point) + axis);
    }
    __device__ __forceinline__ A reference_at(int level_index, int place) const {
      const int64* steps = source.reference_steps;
      return source.reference[image * steps[0] + query * steps[1] + level_index * steps[2] +
                              place * steps[3]];
    }
    // Pixels that one unit of offset reaches along an axis of `size` pixels.
    __device__ __forceinline__ A reach(int level_index, int axis, int size) const {
      return source.reference_dim == 2
                 ? A(1)
                 : reference_at(level_index, 2 + axis) * A(size) * A(0.5) / A(points);
    }
    __device__ __forceinline__ A pixel(int point, int level_index, int axis, int size) const {
      const A base = reference_at(level_index, axis) * A(size) - A(0.5);
      return base + offset(point, axis) * reach(level_index, axis, size);
    }

    __device__ __forceinline__ Located<A> read(int point, int level_index,
                                               const DeviceLevel& level) const {
      return locate(pixel(point, level_index, 0, level.width),
                    pixel(point, level_index, 1, level.height), weight(point), level);
    }

    // From the gradients by pixel coordinates and weight; `finish` turns those by weights into
    // those by logits.
    __device__ __forceinline__ void write_grads(int point, int level_index,
                                                const DeviceLevel& level, const Located<A>& own,
                                                A grad_x, A grad_y, A grad_attn) {
      const A grads[2] = {grad_x, grad_y};
      const int sizes[2] = {level.width, level.height};
      for (int axis = 0; axis < 2; ++axis) {
        store_as(source.grad_offsets, 2 * (out + point) + axis, source.offsets.type,
                 grads[axis] * reach(level_index, axis, sizes[axis]));
        if (source.grad_reference != nullptr) {
          A* grad =
              source.grad_reference + (grad_row * levels + level_index) * source.reference_dim;
          const A by_location = grads[axis] * A(sizes[axis]);
          atomicAdd(grad + axis, by_location);
          // Without a gradient the offset may be NaN or infinite.
          if (source.reference_dim == 4 && grads[axis] != A(0)) {
            atomicAdd(grad + 2 + axis, by_location * offset(point, axis) * A(0.5) / A(points));
          }
        }
      }
      source.grad_logits[out + point] = grad_attn;
      mean += own.attn * grad_attn;
    }

    // The derivative of the softmax: weight * (gradient - mean gradient). Each lane reads back what
    // it wrote.
    template <int kItems, int kGroup>
    __device__ __forceinline__ void finish(const DeviceShape& shape, const Row<kGroup>& row) {
      const A total = group_sum<kGroup>(mean);
      if (row.exists && row.lane < kItems) {
        for (int point = row.lane; point < shape.levels * shape.points; point += kItems) {
          A* grad = source.grad_logits + out + point;
          *grad = weight(point) * (*grad - total);
        }
      }
    }
  };

  // Every lane of the group takes part.
  template <int kGroup>
  __device__ __forceinline__ Head begin(const DeviceShape& shape, const Row<kGroup>& row) const {
    const int count = shape.levels * shape.points;
    Head head = {*this,
                 row.image,
                 row.query,
                 row.head * count,
                 row.index * count,
                 row.image * shape.queries + row.query,
                 shape.levels,
                 shape.points,
                 A(bits_float(0xff800000u)),  // -infinity
                 A(1),
                 A(0)};
    for (int point = row.lane; point < count; point += kGroup) {
      const A logit = logits.template load<A>(head.image, head.query, head.first + point);
      head.largest = logit > head.largest ? logit : head.largest;
    }
    head.largest = group_max<kGroup>(head.largest);
    A sum = A(0);
    for (int point = row.lane; point < count; point += kGroup) {
      sum += head.weight(point);
    }
    head.scale = A(1) / group_sum<kGroup>(sum);
    return head;
  }
};

}  // namespace device
}  // namespace queryseg
