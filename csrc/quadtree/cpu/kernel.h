// CPU kernel of sparse RoIAlign, compiled once per instruction set.
//
// The samples of a cell lie on a grid, so the cell's mean is a product of two one-dimensional sums:
// the rows' weights and the columns' weights are found first, equal pixels merged. A cell of n x n
// samples then reads about (n + 1)^2 pixels instead of 4 n^2, all channels of each at once.
#pragma once

namespace queryseg {
namespace QUERYSEG_ISA {
namespace quadtree_kernel {

using namespace ::queryseg::quadtree;

// The pixels that a cell touches along one axis, and their weights. Pixels of weight zero are left
// out, so that a NaN stored in one cannot leak.
template <typename A>
struct Axis {
  std::vector<int64_t> pixels;
  std::vector<A> weights;

  inline void add(int64_t pixel, A weight) {
    if (weight == A(0)) {
      return;
    }
    const size_t count = pixels.size();
    for (size_t back = 1; back <= 2 && back <= count; ++back) {
      if (pixels[count - back] == pixel) {
        weights[count - back] += weight;
        return;
      }
    }
    pixels.push_back(pixel);
    weights.push_back(weight);
  }

  // Samples are spread evenly over the cell that begins `cell` cells after `start`.
  inline void locate(A start, A length, int64_t cell, int64_t samples, int64_t size) {
    pixels.clear();
    weights.clear();
    // Rounded before it is added, as in RoIAlign elsewhere: fused into one step, the samples of a
    // far cell lie a float32 rounding apart from torchvision's, which steep features show.
    const volatile A offset = static_cast<A>(cell) * length;
    const A begin = start + offset;
    const A share = A(1) / static_cast<A>(samples);
    for (int64_t i = 0; i < samples; ++i) {
      A at = begin + (static_cast<A>(i) + A(0.5)) * length / static_cast<A>(samples);
      if (!(at >= A(-1) && at <= static_cast<A>(size))) {
        continue;  // off the map, or NaN
      }
      at = at > A(0) ? at : A(0);
      const int64_t low = static_cast<int64_t>(at);
      if (low >= size - 1) {
        add(size - 1, share);
        continue;
      }
      const A inside = at - static_cast<A>(low);
      add(low, share - share * inside);
      add(low + 1, share * inside);
    }
  }
};

// The pixels of one node at a time, as offsets in its map.
template <typename A>
struct Cell {
  const GatherShape& shape;
  const NodeInputs& nodes;
  int64_t map = 0;
  std::vector<int64_t> offsets;
  std::vector<A> weights;

  Cell(const GatherShape& shape, const NodeInputs& nodes) : shape(shape), nodes(nodes) {}

  inline void locate(int64_t node) {
    const int64_t* index = nodes.index + 3 * node;
    const int64_t window = index[0] * shape.levels + nodes.level[node];
    const int64_t* bin = nodes.bins + 4 * window;
    const A* place = static_cast<const A*>(nodes.windows) + 4 * window;
    map = bin[1];
    const MapSize& size = shape.maps[map];
    if (window != last_window_ || index[1] != last_row_) {  // neighbours share their rows
      rows_.locate(place[0], place[2], index[1], bin[2], size.height);
      last_window_ = window;
      last_row_ = index[1];
    }
    columns_.locate(place[1], place[3], index[2], bin[3], size.width);
    offsets.clear();
    weights.clear();
    for (size_t row = 0; row < rows_.pixels.size(); ++row) {
      const int64_t line = (bin[0] * size.height + rows_.pixels[row]) * size.width;
      for (size_t column = 0; column < columns_.pixels.size(); ++column) {
        offsets.push_back((line + columns_.pixels[column]) * shape.channels);
        weights.push_back(rows_.weights[row] * columns_.weights[column]);
      }
    }
  }

 private:
  Axis<A> rows_, columns_;
  int64_t last_window_ = -1;
  int64_t last_row_ = 0;
};

// Calls visitor.run<N>(channel) for runs of N whole registers, then visitor.rest(channel, count).
template <typename A, typename Visitor>
inline void for_registers(int64_t first, int64_t last, Visitor& visitor) {
  constexpr int64_t kLanes = Vec<A>::kLanes;
  for (; first + 8 * kLanes <= last; first += 8 * kLanes) {
    visitor.template run<8>(first);
  }
  for (; first + kLanes <= last; first += kLanes) {
    visitor.template run<1>(first);
  }
  if (first < last) {
    visitor.rest(first, static_cast<int>(last - first));
  }
}

// Weighted sum of the pixels of a cell.
template <typename T, typename A>
struct Sum {
  const Cell<A>& cell;
  const T* map;
  A* output;

  template <int N>
  inline void run(int64_t channel) {
    Vec<A> total[N];
    for (int i = 0; i < N; ++i) {
      total[i] = Vec<A>::zero();
    }
    for (size_t p = 0; p < cell.offsets.size(); ++p) {
      const T* pixel = map + cell.offsets[p] + channel;
      const Vec<A> weight = Vec<A>::splat(cell.weights[p]);
      for (int i = 0; i < N; ++i) {
        total[i] = fma(weight, Vec<A>::load(pixel + i * Vec<A>::kLanes), total[i]);
      }
    }
    for (int i = 0; i < N; ++i) {
      total[i].store(output + channel + i * Vec<A>::kLanes);
    }
  }

  inline void rest(int64_t channel, int count) {
    Vec<A> total = Vec<A>::zero();
    for (size_t p = 0; p < cell.offsets.size(); ++p) {
      const Vec<A> value = Vec<A>::load_some(map + cell.offsets[p] + channel, count);
      total = fma(Vec<A>::splat(cell.weights[p]), value, total);
    }
    total.store_some(output + channel, count);
  }
};

// Adds weight * grad to the gradient of every pixel of a cell.
template <typename T, typename A>
struct Spread {
  const Cell<A>& cell;
  const T* grad;
  A* map;

  template <int N>
  inline void run(int64_t channel) {
    Vec<A> value[N];
    for (int i = 0; i < N; ++i) {
      value[i] = Vec<A>::load(grad + channel + i * Vec<A>::kLanes);
    }
    for (size_t p = 0; p < cell.offsets.size(); ++p) {
      A* pixel = map + cell.offsets[p] + channel;
      const Vec<A> weight = Vec<A>::splat(cell.weights[p]);
      for (int i = 0; i < N; ++i) {
        A* to = pixel + i * Vec<A>::kLanes;
        fma(weight, value[i], Vec<A>::load(to)).store(to);
      }
    }
  }

  inline void rest(int64_t channel, int count) {
    const Vec<A> value = Vec<A>::load_some(grad + channel, count);
    for (size_t p = 0; p < cell.offsets.size(); ++p) {
      A* to = map + cell.offsets[p] + channel;
      fma(Vec<A>::splat(cell.weights[p]), value, Vec<A>::load_some(to, count))
          .store_some(to, count);
    }
  }
};

template <typename T, typename A>
void forward_nodes(const ForwardArgs& args, int64_t first, int64_t last) {
  const int64_t channels = args.shape.channels;
  Cell<A> cell(args.shape, args.nodes);
  std::vector<A> row(channels);
  for (int64_t node = first; node < last; ++node) {
    cell.locate(node);
    const T* map = static_cast<const T*>(args.maps[cell.map]);
    T* output = static_cast<T*>(args.output) + node * channels;
    if constexpr (std::is_same_v<T, A>) {
      Sum<T, A> sum{cell, map, output};
      for_registers<A>(0, channels, sum);
    } else {
      Sum<T, A> sum{cell, map, row.data()};
      for_registers<A>(0, channels, sum);
      for (int64_t channel = 0; channel < channels; ++channel) {
        output[channel] = Rounding<T>::to(row[channel]);
      }
    }
  }
}

template <typename T, typename A>
void backward_channels(const BackwardArgs& args, int64_t first, int64_t last) {
  Cell<A> cell(args.shape, args.nodes);
  for (int64_t node = 0; node < args.shape.nodes; ++node) {
    cell.locate(node);
    const T* grad = static_cast<const T*>(args.grad_output) + node * args.shape.channels;
    Spread<T, A> spread{cell, grad, static_cast<A*>(args.grad_maps[cell.map])};
    for_registers<A>(first, last, spread);
  }
}

void forward(const ForwardArgs& args, int64_t first, int64_t last) {
  switch (args.type) {
    case ValueType::kFloat:
      return forward_nodes<float, float>(args, first, last);
    case ValueType::kDouble:
      return forward_nodes<double, double>(args, first, last);
    case ValueType::kHalf:
      return forward_nodes<half_t, float>(args, first, last);
    case ValueType::kBFloat16:
      return forward_nodes<bfloat16_t, float>(args, first, last);
  }
}

void backward(const BackwardArgs& args, int64_t first, int64_t last) {
  switch (args.type) {
    case ValueType::kFloat:
      return backward_channels<float, float>(args, first, last);
    case ValueType::kDouble:
      return backward_channels<double, double>(args, first, last);
    case ValueType::kHalf:
      return backward_channels<half_t, float>(args, first, last);
    case ValueType::kBFloat16:
      return backward_channels<bfloat16_t, float>(args, first, last);
  }
}

}  // namespace quadtree_kernel

const quadtree::Kernels kQuadtree = {quadtree_kernel::forward, quadtree_kernel::backward};

}  // namespace QUERYSEG_ISA
}  // namespace queryseg
