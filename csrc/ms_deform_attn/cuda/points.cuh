// Sampling points on the device: where they lie, and how the lanes of a group share them.
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
  int64 index;  // within (B, Q, M)
  bool exists;
  int64 image;
  int64 query;
  int64 head;

  __device__ __forceinline__ explicit Row(const DeviceShape& shape)
      : lane(threadIdx.x % kGroup),
        index((static_cast<int64>(blockIdx.x) * blockDim.x + threadIdx.x) / kGroup),
        exists(index < shape.rows) {
    index = exists ? index : shape.rows - 1;
    const int64 image_query = divide(index, shape.heads);
    head = index - image_query * shape.heads;
    image = divide(image_query, shape.queries);
    query = image_query - image * shape.queries;
  }
  // Offset of the head's first token in the value.
  __device__ __forceinline__ int64 value_offset(const DeviceShape& shape) const {
    return (image * shape.tokens * shape.heads + head) * shape.channels;
  }
};

}  // namespace device
}  // namespace queryseg
