// Layer norm and ReLU of one position, forward and backward. Rows are whole vectors whose lanes
// beyond the channels are zero, and stay so.
#pragma once

namespace queryseg {
namespace QUERYSEG_ISA {
namespace dynamic_conv_kernel {

template <typename A>
class Norm {
 public:
  Norm(const A* weight, const A* bias, int64_t size, double eps)
      : size_(size),
        width_(whole_vectors<A>(size)),
        share_(A(1) / static_cast<A>(size)),
        eps_(static_cast<A>(eps)),
        memory_(6 * width_),
        weight_(memory_.get()),
        bias_(weight_ + width_),
        inside_(bias_ + width_),
        weight_share_(inside_ + width_),
        bias_share_(weight_share_ + width_),
        grad_(bias_share_ + width_) {
    std::fill_n(memory_.get(), 6 * width_, A(0));
    std::copy_n(weight, size, weight_);
    std::copy_n(bias, size, bias_);
    std::fill_n(inside_, size, A(1));
  }

  // ReLU(norm(row)) in place.
  void apply(A* row) const {
    const Vec<A> scale = Vec<A>::splat(centre(row));
    for (int64_t i = 0; i < width_; i += kLanes) {
      activate(Vec<A>::load(row + i) * scale, i).store(row + i);
    }
  }

  // The row without mean and with variance one, in place; returns what it was scaled by.
  A standardise(A* row) const {
    const A scale = centre(row);
    for (int64_t i = 0; i < width_; i += kLanes) {
      (Vec<A>::load(row + i) * Vec<A>::splat(scale)).store(row + i);
    }
    return scale;
  }

  // ReLU(norm(row)) of a standardised row.
  void activate_standardised(const A* row, A* result) const {
    for (int64_t i = 0; i < width_; i += kLanes) {
      activate(Vec<A>::load(row + i), i).store(result + i);
    }
  }

  // Replaces a standardised row by the gradient of what `standardise` was given, and adds to the
  // gradients of weight and bias. `grad` is that of the result, of any value type.
  template <typename T>
  void differentiate(A* row, A scale, const T* grad) {
    Vec<A> sum = Vec<A>::zero(), along = Vec<A>::zero();
    int64_t i = 0;
    for (; i + kLanes <= size_; i += kLanes) {
      through_weight(row, i, Vec<A>::load(grad + i), sum, along);
    }
    if (i < size_) {
      through_weight(row, i, Vec<A>::load_some(grad + i, static_cast<int>(size_ - i)), sum, along);
    }
    const Vec<A> mean = Vec<A>::splat(-share_ * sum.sum());
    const Vec<A> slope = Vec<A>::splat(-share_ * along.sum());
    for (i = 0; i < width_; i += kLanes) {
      Vec<A> result = fma(mean, Vec<A>::load(inside_ + i), Vec<A>::load(grad_ + i));
      result = fma(slope, Vec<A>::load(row + i), result);
      (result * Vec<A>::splat(scale)).store(row + i);
    }
  }

  void clear_shares() { std::fill_n(weight_share_, 2 * width_, A(0)); }

  // Gradients of weight and bias, one after the other; returns the end.
  A* write_shares(A* to) const {
    std::copy_n(weight_share_, size_, to);
    std::copy_n(bias_share_, size_, to + size_);
    return to + 2 * size_;
  }

 private:
  static constexpr int64_t kLanes = Vec<A>::kLanes;

  // Takes the mean off the row; returns 1 / sqrt(variance + eps).
  A centre(A* row) const {
    const A sum = sum_of([&](int64_t i) { return Vec<A>::load(row + i); });
    const Vec<A> mean = Vec<A>::splat(-share_ * sum);
    const A squares = sum_of([&](int64_t i) {
      const Vec<A> centred = fma(mean, Vec<A>::load(inside_ + i), Vec<A>::load(row + i));
      centred.store(row + i);
      return centred * centred;
    });
    return A(1) / std::sqrt(share_ * squares + eps_);
  }

  // The sum of the vectors at all places of a row: four sums side by side, because each addition
  // waits for the one before.
  template <typename Vector>
  QUERYSEG_INLINE A sum_of(const Vector& vector) const {
    constexpr int kSums = 4;
    Vec<A> sums[kSums] = {Vec<A>::zero(), Vec<A>::zero(), Vec<A>::zero(), Vec<A>::zero()};
    int64_t i = 0;
    for (; i + kSums * kLanes <= width_; i += kSums * kLanes) {
      for (int j = 0; j < kSums; ++j) {
        sums[j] = sums[j] + vector(i + j * kLanes);
      }
    }
    for (; i < width_; i += kLanes) {
      sums[0] = sums[0] + vector(i);
    }
    return ((sums[0] + sums[1]) + (sums[2] + sums[3])).sum();
  }

  QUERYSEG_INLINE Vec<A> activate(Vec<A> standardised, int64_t i) const {
    const Vec<A> value = fma(standardised, Vec<A>::load(weight_ + i), Vec<A>::load(bias_ + i));
    return larger(Vec<A>::zero(), value);  // NaN stays
  }

  QUERYSEG_INLINE void through_weight(const A* row, int64_t i, Vec<A> grad, Vec<A>& sum,
                                      Vec<A>& along) {
    const Vec<A> standardised = Vec<A>::load(row + i);
    const Vec<A> weight = Vec<A>::load(weight_ + i);
    const Vec<A> value = fma(standardised, weight, Vec<A>::load(bias_ + i));
    grad = grad.keep(Vec<A>::zero() < value);
    fma(grad, standardised, Vec<A>::load(weight_share_ + i)).store(weight_share_ + i);
    (Vec<A>::load(bias_share_ + i) + grad).store(bias_share_ + i);
    grad = grad * weight;
    grad.store(grad_ + i);
    sum = sum + grad;
    along = fma(grad, standardised, along);
  }

  int64_t size_;
  int64_t width_;
  A share_;  // of a channel in a mean
  A eps_;
  Scratch<A> memory_;
  A* weight_;
  A* bias_;
  A* inside_;  // 1 for a channel, 0 beyond
  A* weight_share_;
  A* bias_share_;
  A* grad_;
};

}  // namespace dynamic_conv_kernel
}  // namespace QUERYSEG_ISA
}  // namespace queryseg
