// The two copies of a mask map that the CPU kernel works on, one of each per image, and the sums of
// their gradients.
#pragma once

#include <algorithm>
#include <cstdint>
#include <limits>

#include "instance_deform_attn/instance_deform_attn.h"

namespace queryseg {

// Queries: (C, H, row) channel planes whose rows are padded to whole vectors.
// Values: (M, J, H + 4, W + 4, 2) planes of channel pairs inside a border of zeros, two pixels
// wide: coordinates clamped to [-2, size] then read zeros wherever the definition says so, and have
// a zero derivative there, without any comparison. An odd last channel is paired with zeros.
//
// The gradient of the values is summed cell by cell: a slot for each top left corner holds what
// goes to the four corners of the cell, a channel pair each. Slots lie as the pixels of the values
// do.
struct MapLayout {
  static constexpr int64_t kBorder = 2;
  static constexpr int64_t kSlot = 8;  // corner (row by row), channel of the pair
  int64_t query_row;                   // elements
  int64_t query_plane;
  int64_t query_size;
  int64_t pairs;        // per head
  int64_t value_row;    // pixels
  int64_t value_plane;  // elements
  int64_t value_size;
  int64_t origin;  // element of pixel (0, 0) in a value plane

  explicit MapLayout(const InstanceShape& shape)
      : query_row((shape.width + 15) / 16 * 16),
        query_plane(shape.height * query_row),
        query_size(shape.channels * query_plane),
        pairs((shape.head_channels() + 1) / 2),
        value_row(shape.width + 2 * kBorder),
        value_plane((shape.height + 2 * kBorder) * value_row * 2),
        value_size(shape.heads * pairs * value_plane),
        origin((kBorder * value_row + kBorder) * 2) {}

  int64_t slot_plane() const { return value_plane / 2 * kSlot; }
  int64_t slots_size() const { return value_size / 2 * kSlot; }

  // Element of a channel of pixel (0, 0).
  int64_t value_channel(int64_t channel, int64_t head_channels) const {
    const int64_t in_head = channel % head_channels;
    return (channel / head_channels * pairs + in_head / 2) * value_plane + origin + in_head % 2;
  }
};

struct ValidSize {
  int64_t height, width;

  ValidSize(const InstanceInputs& inputs, int64_t image)
      : height(inputs.valid_sizes ? inputs.valid_sizes[2 * image] : inputs.shape.height),
        width(inputs.valid_sizes ? inputs.valid_sizes[2 * image + 1] : inputs.shape.width) {}
};

// Fills the copies of one image. Values of padded pixels are zero.
template <typename A>
void pack_maps(const InstanceInputs& inputs, int64_t image, A* query, A* value) {
  const InstanceShape& shape = inputs.shape;
  const MapLayout layout(shape);
  const ValidSize valid(inputs, image);
  const A* pixels =
      static_cast<const A*>(inputs.mask_feats) + image * shape.pixels() * shape.channels;
  std::fill_n(query, layout.query_size, A(0));
  std::fill_n(value, layout.value_size, A(0));
  for (int64_t channel = 0; channel < shape.channels; ++channel) {
    A* to_query = query + channel * layout.query_plane;
    A* to_value = value + layout.value_channel(channel, shape.head_channels());
    for (int64_t row = 0; row < shape.height; ++row) {
      const A* from = pixels + row * shape.width * shape.channels + channel;
      for (int64_t column = 0; column < shape.width; ++column) {
        to_query[row * layout.query_row + column] = from[column * shape.channels];
      }
      const int64_t width = row < valid.height ? valid.width : 0;
      for (int64_t column = 0; column < width; ++column) {
        to_value[(row * layout.value_row + column) * 2] = from[column * shape.channels];
      }
    }
  }
}

// What the points of all cells around a pixel add to one of its channels; `slot` is element
// (first corner, channel of the pair) of the cell whose top left corner the pixel is.
template <typename A>
A sum_of_corners(const A* slot, int64_t value_row) {
  const A* above = slot - value_row * MapLayout::kSlot;
  return (slot[0] + slot[2 - MapLayout::kSlot]) + (above[4] + above[6 - MapLayout::kSlot]);
}

// Adds the gradients of one image's copies to one row of the gradient of its map.
template <typename A>
void add_map_grads(const InstanceInputs& inputs, int64_t image, int64_t row, const A* query,
                   const A* slots, A* grad_feats) {
  const InstanceShape& shape = inputs.shape;
  const MapLayout layout(shape);
  const ValidSize valid(inputs, image);
  A* pixels = grad_feats + (image * shape.height + row) * shape.width * shape.channels;
  for (int64_t channel = 0; channel < shape.channels; ++channel) {
    const A* from_query = query + channel * layout.query_plane + row * layout.query_row;
    for (int64_t column = 0; column < shape.width; ++column) {
      pixels[column * shape.channels + channel] += from_query[column];
    }
    const int64_t place = layout.value_channel(channel, shape.head_channels());
    const A* slot = slots + place / 2 * MapLayout::kSlot + place % 2 +
                    row * layout.value_row * MapLayout::kSlot;
    const int64_t width = row < valid.height ? valid.width : 0;
    for (int64_t column = 0; column < width; ++column) {
      pixels[column * shape.channels + channel] +=
          sum_of_corners(slot + column * MapLayout::kSlot, layout.value_row);
    }
  }
}

}  // namespace queryseg
