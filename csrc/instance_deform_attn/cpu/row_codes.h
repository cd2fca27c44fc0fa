// The position codes as the lanes read them.
#pragma once

namespace queryseg {
namespace QUERYSEG_ISA {
namespace {

// The position codes of one row of pixels as lanes: (C, padded width).
template <typename A>
class RowCodes {
 public:
  explicit RowCodes(const InstanceInputs& inputs)
      : inputs_(inputs),
        row_(MapLayout(inputs.shape).query_row),
        columns_(inputs.shape.column_channels() * row_),
        codes_(inputs.shape.channels * row_) {
    std::fill_n(columns_.get(), inputs.shape.column_channels() * row_, A(0));
    std::fill_n(codes_.get(), inputs.shape.channels * row_, A(0));
  }

  void start_instance(int64_t instance) {
    const InstanceShape& shape = inputs_.shape;
    row_codes_ = static_cast<const A*>(inputs_.row_codes) +
                 instance * (shape.height + 1) * shape.row_channels;
    column_codes_ = static_cast<const A*>(inputs_.column_codes) +
                    instance * (shape.width + 1) * shape.column_channels();
    for (int64_t channel = 0; channel < shape.column_channels(); ++channel) {
      for (int64_t column = 0; column < shape.width; ++column) {
        columns_.get()[channel * row_ + column] =
            column_codes_[column * shape.column_channels() + channel];
      }
    }
  }

  const A* of_row(int64_t row, const ValidSize& valid) {
    const InstanceShape& shape = inputs_.shape;
    for (int64_t channel = 0; channel < shape.row_channels; ++channel) {
      A* to = codes_.get() + channel * row_;
      std::fill(to, to + valid.width, row_codes_[row * shape.row_channels + channel]);
      std::fill(to + valid.width, to + shape.width,
                row_codes_[shape.height * shape.row_channels + channel]);
    }
    for (int64_t channel = 0; channel < shape.column_channels(); ++channel) {
      A* to = codes_.get() + (shape.row_channels + channel) * row_;
      if (row < valid.height) {
        std::copy_n(columns_.get() + channel * row_, shape.width, to);
      } else {
        std::fill_n(to, shape.width,
                    column_codes_[shape.width * shape.column_channels() + channel]);
      }
    }
    return codes_.get();
  }

 private:
  const InstanceInputs& inputs_;
  int64_t row_;
  Scratch<A> columns_;
  Scratch<A> codes_;
  const A* row_codes_ = nullptr;
  const A* column_codes_ = nullptr;
};

}  // namespace
}  // namespace QUERYSEG_ISA
}  // namespace queryseg
