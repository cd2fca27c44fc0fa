// Sampling points given as normalised locations and weights.
#pragma once

#include "ms_deform_attn/cuda/points.cuh"

namespace queryseg {
namespace device {

template <typename A>
struct PlainSource {
  const A* locations;
  const A* weights;
  A* grad_locations;
  A* grad_weights;

  // The points of one (query, head).
  struct Head {
    const PlainSource& source;
    int64 first;  // within (B, Q, M, L, P)

    __device__ __forceinline__ Located<A> read(int point, int, const DeviceLevel& level) const {
      const Pack<A, 2> at = reinterpret_cast<const Pack<A, 2>*>(source.locations)[first + point];
      return locate(at.v[0] * A(level.width) - A(0.5), at.v[1] * A(level.height) - A(0.5),
                    source.weights[first + point], level);
    }
    // From the gradients by pixel coordinates and weight.
    __device__ __forceinline__ void write_grads(int point, int, const DeviceLevel& level,
                                                const Located<A>&, A grad_x, A grad_y,
                                                A grad_attn) {
      const Pack<A, 2> grad = {{grad_x * A(level.width), grad_y * A(level.height)}};
      reinterpret_cast<Pack<A, 2>*>(source.grad_locations)[first + point] = grad;
      source.grad_weights[first + point] = grad_attn;
    }
    template <int kItems, int kGroup>
    __device__ __forceinline__ void finish(const DeviceShape&, const Row<kGroup>&) {}
  };

  // Every lane of the group takes part.
  template <int kGroup>
  __device__ __forceinline__ Head begin(const DeviceShape& shape, const Row<kGroup>& row) const {
    return {*this, row.index * shape.levels * shape.points};
  }
};

}  // namespace device
}  // namespace queryseg
