// CPU kernel of the dynamic convolution: one instance after the other, everything between its
// features and its result in the first two levels of the cache.
//
// The forward pass takes a few positions at a time through both products and both norms. The
// backward pass computes them again, then the gradients product by product.
#pragma once

namespace queryseg {
namespace QUERYSEG_ISA {
namespace dynamic_conv_kernel {

using namespace ::queryseg::dynamic_conv;

// What both passes read, and memory for what of it is not in the form that they work on.
template <typename T, typename A>
class InstanceReader {
 public:
  explicit InstanceReader(const Inputs& inputs)
      : inputs_(inputs),
        shape_(inputs.shape),
        inner_width_(whole_vectors<A>(shape_.inner)),
        channel_width_(whole_vectors<A>(shape_.channels)),
        as_rows_(shape_.as_map && shape_.inner > 2 * kTileColumns<A>),
        features_(std::is_same_v<T, A> && !as_rows_ ? 0 : shape_.instance_features()),
        w_in_(in_place(inner_width_ == shape_.inner) ? 0 : shape_.channels * inner_width_),
        w_out_(in_place(channel_width_ == shape_.channels) ? 0 : shape_.inner * channel_width_) {}

  int64_t inner_width() const { return inner_width_; }
  int64_t channel_width() const { return channel_width_; }

  Norm<A> norm_in() const {
    return {static_cast<const A*>(inputs_.norm_in_weight),
            static_cast<const A*>(inputs_.norm_in_bias), shape_.inner, inputs_.eps};
  }
  Norm<A> norm_out() const {
    return {static_cast<const A*>(inputs_.norm_out_weight),
            static_cast<const A*>(inputs_.norm_out_bias), shape_.channels, inputs_.eps};
  }

  // To be called for an instance that exists.
  void fetch(int64_t instance, Prefetch& prefetch) const {
    prefetch.add(weights(instance), shape_.instance_weights());
    prefetch.add(all_features(instance), shape_.instance_features());
  }

  Factor<A> features(int64_t instance) const {
    const T* from = all_features(instance);
    if (as_rows_) {
      transpose(from, shape_.positions, shape_.channels, shape_.positions, features_.get(),
                shape_.channels);
      return {features_.get(), shape_.channels, 1};
    }
    const A* start;
    if constexpr (std::is_same_v<T, A>) {
      start = from;
    } else {
      widen(from, shape_.instance_features(), features_.get());
      start = features_.get();
    }
    const Factor<A> rows{start, shape_.channels, 1};
    return shape_.as_map ? Factor<A>{start, 1, shape_.positions} : rows;
  }

  Rows<const A> w_in(int64_t instance) const {
    return read_rows(weights(instance), shape_.channels, shape_.inner, w_in_.get());
  }
  Rows<const A> w_out(int64_t instance) const {
    return read_rows(weights(instance) + shape_.channels * shape_.inner, shape_.inner,
                     shape_.channels, w_out_.get());
  }

 private:
  static bool in_place(bool whole) { return std::is_same_v<T, A> && whole; }

  const T* all_features(int64_t instance) const {
    return static_cast<const T*>(inputs_.features) + instance * shape_.instance_features();
  }
  const T* weights(int64_t instance) const {
    return static_cast<const T*>(inputs_.dynamic_weights) + instance * shape_.instance_weights();
  }

  const Inputs& inputs_;
  const Shape& shape_;
  int64_t inner_width_, channel_width_;
  // Whether maps are turned into rows first: a few positions of a map lie in as many lines of the
  // cache as it has channels, which each tile of a row of tiles loads again. Two may.
  bool as_rows_;
  Scratch<A> features_, w_in_, w_out_;
};

// Of both products.
template <typename A>
inline int64_t forward_steps(const Shape& shape) {
  return product_steps<A>(shape.positions, shape.channels, shape.inner) +
         product_steps<A>(shape.positions, shape.inner, shape.channels);
}

template <typename T, typename A>
void forward_instances(const Forward& call, int64_t first, int64_t last) {
  const Shape& shape = call.inputs.shape;
  const InstanceReader<T, A> reader(call.inputs);
  const Norm<A> norm_in = reader.norm_in(), norm_out = reader.norm_out();
  const Scratch<A> hidden_memory(kTileRows * reader.inner_width());
  const Scratch<A> output_memory(kTileRows * reader.channel_width());
  const Rows<A> hidden{hidden_memory.get(), reader.inner_width()};
  for (int64_t instance = first; instance < last; ++instance) {
    const Factor<A> features = reader.features(instance);
    const Rows<const A> w_in = reader.w_in(instance), w_out = reader.w_out(instance);
    T* output = static_cast<T*>(call.output) + instance * shape.instance_features();
    Prefetch prefetch;
    if (instance + 1 < last) {
      reader.fetch(instance + 1, prefetch);
      prefetch.add(output + shape.instance_features(), shape.instance_features());
      prefetch.spread(forward_steps<A>(shape));
    }
    for_row_blocks(shape.positions, [&](int64_t row, int64_t count) {
      T* to = output + row * shape.channels;
      const Rows<A> result = rows_for(to, shape.channels, output_memory.get());
      multiply_block(features.from(row), count, w_in, shape.channels, hidden, prefetch);
      for (int64_t i = 0; i < count; ++i) {
        norm_in.apply(hidden[i]);
      }
      multiply_block(factor(hidden), count, w_out, shape.inner, result, prefetch);
      for (int64_t i = 0; i < count; ++i) {
        norm_out.apply(result[i]);
      }
      write_rows(result, count, shape.channels, to);
    });
  }
}

template <typename T, typename A>
class BackwardPass {
 public:
  explicit BackwardPass(const Backward& call)
      : call_(call),
        shape_(call.inputs.shape),
        reader_(call.inputs),
        norm_in_(reader_.norm_in()),
        norm_out_(reader_.norm_out()),
        memory_(shape_.positions * (3 * reader_.inner_width() + reader_.channel_width() + 1)),
        standardised_{memory_.get(), reader_.inner_width()},
        hidden_{standardised_[shape_.positions], reader_.inner_width()},
        grad_hidden_{hidden_[shape_.positions], reader_.inner_width()},
        outer_{grad_hidden_[shape_.positions], reader_.channel_width()},
        scales_(outer_[shape_.positions]),
        transposed_(std::max(shape_.channels * reader_.inner_width(),
                             shape_.inner * reader_.channel_width())),
        result_(std::max({shape_.channels * reader_.inner_width(),
                          shape_.inner * reader_.channel_width(),
                          shape_.positions * reader_.channel_width()})),
        map_(shape_.instance_features()) {}

  // The next instance is fetched meanwhile if it comes before `last`.
  void run(int64_t instance, int64_t last) {
    prefetch_ = {};
    if (instance + 1 < last) {
      fetch(instance + 1);
    }
    const Factor<A> features = reader_.features(instance);
    const Rows<const A> w_in = reader_.w_in(instance), w_out = reader_.w_out(instance);
    T* grad_w_in = static_cast<T*>(call_.grad_weights) + instance * shape_.instance_weights();
    T* grad_w_out = grad_w_in + shape_.channels * shape_.inner;
    norm_in_.clear_shares();
    norm_out_.clear_shares();
    const T* grad_output =
        static_cast<const T*>(call_.grad_output) + instance * shape_.instance_features();
    to_outer_gradient(features, w_in, w_out, grad_output);
    by_weights(factor(hidden_).transposed(), shape_.inner, outer_, shape_.channels, grad_w_out);
    multiply(factor(outer_), shape_.positions,
             transpose_rows(w_out, shape_.inner, shape_.channels, reader_.inner_width()),
             shape_.channels, grad_hidden_, prefetch_);
    for (int64_t row = 0; row < shape_.positions; ++row) {
      norm_in_.differentiate(standardised_[row], scales_[row], grad_hidden_[row]);
    }
    by_weights(features.transposed(), shape_.channels, standardised_, shape_.inner, grad_w_in);
    by_features(w_in, static_cast<T*>(call_.grad_features) + instance * shape_.instance_features());
    A* shares = static_cast<A*>(call_.norm_shares) + instance * shape_.norm_values();
    norm_out_.write_shares(norm_in_.write_shares(shares));
  }

 private:
  void fetch(int64_t instance) {
    reader_.fetch(instance, prefetch_);
    const int64_t features = instance * shape_.instance_features();
    prefetch_.add(static_cast<const T*>(call_.grad_output) + features, shape_.instance_features());
    prefetch_.add(static_cast<T*>(call_.grad_weights) + instance * shape_.instance_weights(),
                  shape_.instance_weights());
    prefetch_.add(static_cast<T*>(call_.grad_features) + features, shape_.instance_features());
    prefetch_.spread(2 * forward_steps<A>(shape_) +
                     product_steps<A>(shape_.inner, shape_.positions, shape_.channels) +
                     product_steps<A>(shape_.channels, shape_.positions, shape_.inner));
  }

  // The forward pass again, and from the gradient of its result to that of the second product,
  // which `outer_` holds then.
  void to_outer_gradient(const Factor<A>& features, const Rows<const A>& w_in,
                         const Rows<const A>& w_out, const T* grad_output) {
    for_row_blocks(shape_.positions, [&](int64_t row, int64_t count) {
      multiply_block(features.from(row), count, w_in, shape_.channels, standardised_.from(row),
                     prefetch_);
      for (int64_t i = row; i < row + count; ++i) {
        scales_[i] = norm_in_.standardise(standardised_[i]);
        norm_in_.activate_standardised(standardised_[i], hidden_[i]);
      }
      multiply_block(factor(hidden_.from(row)), count, w_out, shape_.inner, outer_.from(row),
                     prefetch_);
      for (int64_t i = row; i < row + count; ++i) {
        const A scale = norm_out_.standardise(outer_[i]);
        norm_out_.differentiate(outer_[i], scale, grad_output + i * shape_.channels);
      }
    });
  }

  // left @ grad over all positions, to where the gradient of the weights belongs.
  void by_weights(const Factor<A>& left, int64_t rows, const Rows<A>& grad, int64_t columns,
                  T* to) {
    const Rows<A> result = rows_for(to, columns, result_.get());
    multiply(left, rows, Rows<const A>{grad.start, grad.step}, shape_.positions, result, prefetch_);
    write_rows(result, rows, columns, to);
  }

  // `standardised_` holds the gradient of the first product.
  void by_features(const Rows<const A>& w_in, T* to) {
    const Rows<const A> right =
        transpose_rows(w_in, shape_.channels, shape_.inner, reader_.channel_width());
    if (!shape_.as_map) {
      const Rows<A> result = rows_for(to, shape_.channels, result_.get());
      multiply(factor(standardised_), shape_.positions, right, shape_.inner, result, prefetch_);
      write_rows(result, shape_.positions, shape_.channels, to);
      return;
    }
    const Rows<A> result{result_.get(), reader_.channel_width()};
    multiply(factor(standardised_), shape_.positions, right, shape_.inner, result, prefetch_);
    A* map = rows_on_map(to);
    transpose(result.start, result.step, shape_.positions, shape_.channels, map, shape_.positions);
    if (static_cast<void*>(map) != to) {
      narrow_all(map, shape_.instance_features(), to);
    }
  }

  A* rows_on_map(T* to) const {
    if constexpr (std::is_same_v<T, A>) {
      return to;
    } else {
      return map_.get();
    }
  }

  Rows<const A> transpose_rows(const Rows<const A>& rows, int64_t count, int64_t columns,
                               int64_t step) const {
    if (step > count) {
      std::fill_n(transposed_.get(), columns * step, A(0));
    }
    transpose(rows.start, rows.step, count, columns, transposed_.get(), step);
    return {transposed_.get(), step};
  }

  const Backward& call_;
  const Shape& shape_;
  InstanceReader<T, A> reader_;
  Norm<A> norm_in_, norm_out_;
  Scratch<A> memory_;
  Rows<A> standardised_;  // (T, d) of the first norm, later the gradient of the first product
  Rows<A> hidden_;        // (T, d)
  Rows<A> grad_hidden_;   // (T, d)
  Rows<A> outer_;         // (T, C)
  A* scales_;             // (T,) of the first norm
  Prefetch prefetch_;
  Scratch<A> transposed_, result_, map_;
};

template <typename T, typename A>
void backward_instances(const Backward& call, int64_t first, int64_t last) {
  BackwardPass<T, A> pass(call);
  for (int64_t instance = first; instance < last; ++instance) {
    pass.run(instance, last);
  }
}

void forward(const Forward& call, int64_t first, int64_t last) {
  switch (call.inputs.type) {
    case ValueType::kFloat:
      return forward_instances<float, float>(call, first, last);
    case ValueType::kDouble:
      return forward_instances<double, double>(call, first, last);
    case ValueType::kHalf:
      return forward_instances<half_t, float>(call, first, last);
    case ValueType::kBFloat16:
      return forward_instances<bfloat16_t, float>(call, first, last);
  }
}

void backward(const Backward& call, int64_t first, int64_t last) {
  switch (call.inputs.type) {
    case ValueType::kFloat:
      return backward_instances<float, float>(call, first, last);
    case ValueType::kDouble:
      return backward_instances<double, double>(call, first, last);
    case ValueType::kHalf:
      return backward_instances<half_t, float>(call, first, last);
    case ValueType::kBFloat16:
      return backward_instances<bfloat16_t, float>(call, first, last);
  }
}

}  // namespace dynamic_conv_kernel

const dynamic_conv::Kernels kDynamicConv = {dynamic_conv_kernel::forward,
                                            dynamic_conv_kernel::backward};

}  // namespace QUERYSEG_ISA
}  // namespace queryseg
