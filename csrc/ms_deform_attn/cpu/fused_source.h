// Sampling points given as reference points and as what the linear layers put out: offsets and
// logits. Locations and softmaxed weights exist for one batch of points at a time.
#pragma once

#include "common/cpu/vec_math.h"
#include "ms_deform_attn/cpu/point_source.h"

namespace queryseg {
namespace QUERYSEG_ISA {

// Turns the logits of one head into weights, in place; up to one vector beyond them is overwritten.
template <typename A>
inline void softmax(A* logits, int count) {
  using V = Vec<A>;
  const A lowest = -std::numeric_limits<A>::infinity();
  V largest = V::splat(lowest);
  for (int i = 0; i < count; i += V::kLanes) {
    const V logit = with_rest(V::load(logits + i), std::min(count - i, V::kLanes), lowest);
    logit.store(logits + i);
    largest = larger(largest, logit);
  }
  const V shift = V::splat(largest_lane(largest));
  V sum = V::zero();
  for (int i = 0; i < count; i += V::kLanes) {
    const V power = exp_negative(V::load(logits + i) - shift);
    power.store(logits + i);
    sum = sum + power;
  }
  const V scale = V::splat(A(1) / sum.sum());
  for (int i = 0; i < count; i += V::kLanes) {
    (V::load(logits + i) * scale).store(logits + i);
  }
}

// The pixel coordinate of a point is base + scale * offset, whatever the head.
template <typename A>
struct OffsetFrame {
  std::vector<A> base_x, base_y, scale_x, scale_y;

  void resize(size_t count) {
    for (auto* field : {&base_x, &base_y, &scale_x, &scale_y}) {
      field->resize(count);
    }
  }
};

template <typename A>
class FusedSource final : public PointSource<A> {
 public:
  FusedSource(const AttnShape& shape, const PointTables<A>& tables, const FusedInputs& inputs,
              const FusedGrads& grads)
      : shape_(shape), per_head_(tables.per_head), inputs_(inputs), grads_(grads) {}

  void begin(int64_t image, const int64_t* queries, int64_t count) override {
    frame_.resize(count * per_head_ + Vec<A>::kLanes);
    int64_t i = 0;
    for (int64_t place = 0; place < count; ++place) {
      for (size_t l = 0; l < shape_.levels.size(); ++l) {
        const Box box = reference_box(image, queries[place], l);
        const A width = static_cast<A>(shape_.levels[l].width);
        const A height = static_cast<A>(shape_.levels[l].height);
        for (int64_t p = 0; p < shape_.points; ++p, ++i) {
          frame_.base_x[i] = box.x * width - A(0.5);
          frame_.base_y[i] = box.y * height - A(0.5);
          frame_.scale_x[i] = inputs_.reference_dim == 2 ? A(1) : box.w * width;
          frame_.scale_y[i] = inputs_.reference_dim == 2 ? A(1) : box.h * height;
        }
      }
    }
  }

  void read(const QueryHeads& at, int p, Points<A>& points) const override {
    with_number_type(inputs_.offsets.type, [&](auto number) {
      place(at, row<decltype(number)>(inputs_.offsets, at, 2), p, points);
    });
    with_number_type(inputs_.logits.type, [&](auto number) {
      weigh(at, row<decltype(number)>(inputs_.logits, at, 1), p, points);
    });
  }

  void write_grads(const QueryHeads& at, int p, const Points<A>& points) const override {
    with_number_type(inputs_.offsets.type, [&](auto number) {
      write_offset_grads(at, static_cast<decltype(number)*>(grads_.offsets), p, points);
    });
    with_number_type(inputs_.logits.type, [&](auto number) {
      write_logit_grads(at, static_cast<decltype(number)*>(grads_.logits), p, points);
    });
    if (grads_.reference != nullptr) {
      with_number_type(inputs_.offsets.type, [&](auto number) {
        write_reference_grads(at, row<decltype(number)>(inputs_.offsets, at, 2), p, points);
      });
    }
  }

 private:
  // A reference point, and how far one unit of offset reaches.
  struct Box {
    A x, y, w, h;
  };

  // Calls run(T()) with the type that offsets or logits are stored in.
  template <typename Run>
  static void with_number_type(ValueType type, const Run& run) {
    if constexpr (std::is_same_v<A, double>) {
      run(double());
    } else if (type == ValueType::kHalf) {
      run(half_t());
    } else if (type == ValueType::kBFloat16) {
      run(bfloat16_t());
    } else {
      run(float());
    }
  }

  Box reference_box(int64_t image, int64_t query, int64_t level) const {
    const int64_t* steps = inputs_.reference_steps;
    const A* at = static_cast<const A*>(inputs_.reference) + image * steps[0] + query * steps[1] +
                  level * steps[2];
    if (inputs_.reference_dim == 2) {
      return {at[0], at[steps[3]], A(1), A(1)};
    }
    const A share = A(0.5) / static_cast<A>(shape_.points);
    return {at[0], at[steps[3]], at[2 * steps[3]] * share, at[3 * steps[3]] * share};
  }

  // What the first of the heads reads of an output of a linear layer, with `width` numbers a point.
  template <typename T>
  const T* row(const QueryRows& rows, const QueryHeads& at, int width) const {
    return static_cast<const T*>(rows.data) + at.image * rows.image_step +
           at.query * rows.query_step + at.first_head * per_head_ * width;
  }

  // Its number within (B, Q, M).
  int64_t head_number(const QueryHeads& at, int64_t head) const {
    return (at.image * shape_.queries + at.query) * shape_.heads + at.first_head + head;
  }

  int64_t frame_of(const QueryHeads& at) const { return at.place * per_head_; }

  template <typename T>
  void place(const QueryHeads& at, const T* offsets, int p, Points<A>& points) const {
    using V = Vec<A>;
    const int64_t frame = frame_of(at);
    for (int64_t head = 0; head < at.heads; ++head, p += per_head_) {
      for (int i = 0; i < per_head_; i += V::kLanes) {
        V x, y;
        load_pairs(offsets + 2 * (head * per_head_ + i), per_head_ - i, x, y);
        fma(x, V::load(&frame_.scale_x[frame + i]), V::load(&frame_.base_x[frame + i]))
            .store(&points.x[p + i]);
        fma(y, V::load(&frame_.scale_y[frame + i]), V::load(&frame_.base_y[frame + i]))
            .store(&points.y[p + i]);
      }
    }
  }

  template <typename T>
  void weigh(const QueryHeads& at, const T* logits, int p, Points<A>& points) const {
    for (int64_t head = 0; head < at.heads; ++head, p += per_head_) {
      for (int i = 0; i < per_head_; i += Vec<A>::kLanes) {
        load_up_to<A>(logits + head * per_head_ + i, per_head_ - i).store(&points.attn[p + i]);
      }
      softmax(&points.attn[p], per_head_);
    }
  }

  template <typename T>
  void write_offset_grads(const QueryHeads& at, T* grads, int p, const Points<A>& points) const {
    using V = Vec<A>;
    const int64_t frame = frame_of(at);
    for (int64_t head = 0; head < at.heads; ++head, p += per_head_) {
      T* to = grads + 2 * head_number(at, head) * per_head_;
      for (int i = 0; i < per_head_; i += V::kLanes) {
        const V x = V::load(&points.grad_x[p + i]) * V::load(&frame_.scale_x[frame + i]);
        const V y = V::load(&points.grad_y[p + i]) * V::load(&frame_.scale_y[frame + i]);
        store_pairs_up_to(to + 2 * i, x, y, per_head_ - i);
      }
    }
  }

  // The derivative of the softmax: weight * (gradient - mean gradient).
  template <typename T>
  void write_logit_grads(const QueryHeads& at, T* grads, int p, const Points<A>& points) const {
    using V = Vec<A>;
    for (int64_t head = 0; head < at.heads; ++head, p += per_head_) {
      V products = V::zero();
      for (int i = 0; i < per_head_; i += V::kLanes) {
        const V product = V::load(&points.attn[p + i]) * V::load(&points.grad_attn[p + i]);
        products = products + with_rest(product, std::min(per_head_ - i, V::kLanes), A(0));
      }
      const V mean = V::splat(products.sum());
      T* to = grads + head_number(at, head) * per_head_;
      for (int i = 0; i < per_head_; i += V::kLanes) {
        const V grad = V::load(&points.attn[p + i]) * (V::load(&points.grad_attn[p + i]) - mean);
        store_up_to(to + i, grad, per_head_ - i);
      }
    }
  }

  // Zero where there is no gradient, though the offset be NaN or infinite.
  template <typename Offset>
  static A times(A grad, Offset offset) {
    return grad == A(0) ? A(0) : grad * offset;
  }

  // (B, Q, M, L, K): the share of each head, so that no two threads add to the same sum.
  template <typename T>
  void write_reference_grads(const QueryHeads& at, const T* offsets, int p,
                             const Points<A>& points) const {
    const A share = A(0.5) / static_cast<A>(shape_.points);
    const int64_t dim = inputs_.reference_dim;
    for (int64_t head = 0; head < at.heads; ++head) {
      A* to = static_cast<A*>(grads_.reference) +
              head_number(at, head) * static_cast<int64_t>(shape_.levels.size()) * dim;
      for (const Level& level : shape_.levels) {
        A x = 0, y = 0, w = 0, h = 0;
        for (int64_t i = 0; i < shape_.points; ++i, ++p, offsets += 2) {
          x += points.grad_x[p];
          y += points.grad_y[p];
          w += times(points.grad_x[p], to_compute(offsets[0])) * share;
          h += times(points.grad_y[p], to_compute(offsets[1])) * share;
        }
        const A sums[4] = {x * level.width, y * level.height, w * level.width, h * level.height};
        std::copy_n(sums, dim, to);
        to += dim;
      }
    }
  }

  const AttnShape& shape_;
  const int per_head_;
  const FusedInputs& inputs_;
  const FusedGrads& grads_;
  OffsetFrame<A> frame_;
};

}  // namespace QUERYSEG_ISA
}  // namespace queryseg
