// The gradient of the value while it is being summed.
#pragma once

#include "ms_deform_attn/cpu/kernels.h"
#include "ms_deform_attn/cpu/token_layout.h"

namespace queryseg {
namespace QUERYSEG_ISA {

// Where the sums of a part of the value's gradient grow: in the result itself, which is zero-filled
// then, or packed head by head and written at the end.
template <typename T, typename A>
struct ValueSums {
  const int64_t heads, tokens, channels;
  const TokenLayout result_layout;
  T* const result;
  const bool in_place;
  const TokenLayout layout;
  const Scratch<A> packed;

  ValueSums(const AttnShape& shape, void* grad_value, const ValuePart& part)
      : heads(part.last_head - part.first_head),
        tokens(shape.tokens),
        channels(part.last_channel - part.first_channel),
        result_layout{shape.heads * shape.channels, shape.channels},
        result(static_cast<T*>(grad_value) + part.image * shape.tokens * result_layout.token_step +
               part.first_head * result_layout.head_step + part.first_channel),
        in_place(part.in_place),
        layout(in_place ? result_layout : TokenLayout{channels, shape.tokens * channels}),
        packed(in_place ? 0 : heads * shape.tokens * channels) {
    std::fill_n(packed.get(), in_place ? 0 : heads * tokens * channels, A(0));
  }

  A* of_head(int64_t head) const {
    if constexpr (std::is_same_v<T, A>) {
      if (in_place) {
        return result + head * layout.head_step;
      }
    }
    return packed.get() + head * layout.head_step;
  }

  void write() const {
    if (in_place) {
      return;
    }
    for (int64_t token = 0; token < tokens; ++token) {
      for (int64_t head = 0; head < heads; ++head) {
        const A* sums = packed.get() + head * layout.head_step + token * layout.token_step;
        T* row = result + head * result_layout.head_step + token * result_layout.token_step;
        narrow_all(sums, channels, row);
      }
    }
  }
};

}  // namespace QUERYSEG_ISA
}  // namespace queryseg
