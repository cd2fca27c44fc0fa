// Multi-scale deformable attention as GPUs have run it since 2020, for comparison: one thread for
// each channel of the output, every thread locating every point by itself, scalar loads, scalar
// atomic additions, and partial sums of the point gradients that one thread of the block adds up.
//
// Written anew from the published design; float32, 32-bit indices, no vector loads, no shuffles.
// Free of torch.
#pragma once

namespace baseline {

constexpr int kForwardThreads = 1024;

struct Sizes {
  int batch, tokens, queries, heads, channels, levels, points;
};

// The four corners of a point: their offsets in the image's value, -1 off the map, and their
// weights.
struct Corners {
  int offset[4];
  float near[4];
  float x, y;  // within the cell
  bool inside;
};

__device__ inline Corners locate(const Sizes& sizes, const long long* shapes,
                                 const long long* starts, int head, int level, float location_x,
                                 float location_y) {
  const int height = static_cast<int>(shapes[2 * level]);
  const int width = static_cast<int>(shapes[2 * level + 1]);
  const float x = location_x * width - 0.5f;
  const float y = location_y * height - 0.5f;
  Corners corners = {};
  corners.inside = x > -1 && y > -1 && x < width && y < height;
  if (!corners.inside) {
    return corners;
  }
  const int left = static_cast<int>(floorf(x));
  const int top = static_cast<int>(floorf(y));
  corners.x = x - left;
  corners.y = y - top;
  const int step = sizes.heads * sizes.channels;
  const int first =
      (static_cast<int>(starts[level]) + top * width + left) * step + head * sizes.channels;
  for (int corner = 0; corner < 4; ++corner) {
    const int row = top + corner / 2;
    const int column = left + corner % 2;
    const bool visible = row >= 0 && column >= 0 && row < height && column < width;
    corners.offset[corner] = visible ? first + (corner / 2 * width + corner % 2) * step : -1;
    corners.near[corner] =
        (corner / 2 ? corners.y : 1 - corners.y) * (corner % 2 ? corners.x : 1 - corners.x);
  }
  return corners;
}

// Where the value of an image begins.
__device__ inline long long image_offset(const Sizes& sizes, int image) {
  return static_cast<long long>(image) * sizes.tokens * sizes.heads * sizes.channels;
}

__global__ void __launch_bounds__(kForwardThreads)
    forward(Sizes sizes, const float* value, const long long* shapes, const long long* starts,
            const float* locations, const float* weights, float* output) {
  const int index = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
  if (index >= sizes.batch * sizes.queries * sizes.heads * sizes.channels) {
    return;
  }
  const int channel = index % sizes.channels;
  const int row = index / sizes.channels;  // of (B, Q, M)
  const int head = row % sizes.heads;
  value += image_offset(sizes, row / sizes.heads / sizes.queries);
  int point = row * sizes.levels * sizes.points;
  float total = 0;
  for (int level = 0; level < sizes.levels; ++level) {
    for (int p = 0; p < sizes.points; ++p, ++point) {
      const Corners corners = locate(sizes, shapes, starts, head, level, locations[2 * point],
                                     locations[2 * point + 1]);
      if (!corners.inside) {
        continue;
      }
      float sample = 0;
      for (int corner = 0; corner < 4; ++corner) {
        if (corners.offset[corner] >= 0) {
          sample += corners.near[corner] * value[corners.offset[corner] + channel];
        }
      }
      total += weights[point] * sample;
    }
  }
  output[index] = total;
}

// A block of kChannels threads for each (query, head).
template <int kChannels>
__global__ void backward(Sizes sizes, const float* grad_output, const float* value,
                         const long long* shapes, const long long* starts, const float* locations,
                         const float* weights, float* grad_value, float* grad_locations,
                         float* grad_weights) {
  __shared__ float partial[3 * kChannels];
  const int channel = threadIdx.x;
  const int row = static_cast<int>(blockIdx.x);
  const int head = row % sizes.heads;
  const long long image = image_offset(sizes, row / sizes.heads / sizes.queries);
  value += image;
  grad_value += image;
  const float grad = grad_output[row * sizes.channels + channel];
  int point = row * sizes.levels * sizes.points;
  for (int level = 0; level < sizes.levels; ++level) {
    const float height = shapes[2 * level];
    const float width = shapes[2 * level + 1];
    for (int p = 0; p < sizes.points; ++p, ++point) {
      const Corners corners = locate(sizes, shapes, starts, head, level, locations[2 * point],
                                     locations[2 * point + 1]);
      float by_x = 0, by_y = 0, by_weight = 0;
      for (int corner = 0; corner < 4; ++corner) {
        if (!corners.inside || corners.offset[corner] < 0) {
          continue;
        }
        const int at = corners.offset[corner] + channel;
        const float product = value[at] * grad;
        by_x += (corner % 2 ? 1 : -1) * (corner / 2 ? corners.y : 1 - corners.y) * product;
        by_y += (corner / 2 ? 1 : -1) * (corner % 2 ? corners.x : 1 - corners.x) * product;
        by_weight += corners.near[corner] * product;
        atomicAdd(grad_value + at, weights[point] * corners.near[corner] * grad);
      }
      partial[3 * channel] = by_x;
      partial[3 * channel + 1] = by_y;
      partial[3 * channel + 2] = by_weight;
      __syncthreads();
      if (channel == 0) {
        float sums[3] = {0, 0, 0};
        for (int lane = 0; lane < kChannels; ++lane) {
          for (int i = 0; i < 3; ++i) {
            sums[i] += partial[3 * lane + i];
          }
        }
        grad_locations[2 * point] = weights[point] * width * sums[0];
        grad_locations[2 * point + 1] = weights[point] * height * sums[1];
        grad_weights[point] = sums[2];
      }
      __syncthreads();
    }
  }
}

}  // namespace baseline
