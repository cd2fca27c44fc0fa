// The tokens that a part of the work gathers from.
//
// In the given layout the tokens of a head lie M * D apart, so that they compete for a few sets of
// the caches and each touches its own page. Where a head's tokens are used often enough, they are
// therefore packed into a scratch buffer first (measured: less than half the time).
#pragma once

#include "ms_deform_attn/cpu/kernels.h"
#include "ms_deform_attn/cpu/token_layout.h"

namespace queryseg {
namespace QUERYSEG_ISA {

// As given, or the part's heads packed.
template <typename T>
struct ValueView {
  TokenLayout layout;
  const T* first_head;
  Scratch<T> packed;

  ValueView(const AttnShape& shape, const void* value, const Part& part)
      : layout{shape.heads * shape.channels, shape.channels},
        first_head(static_cast<const T*>(value) + part.image * shape.tokens * layout.token_step +
                   part.first_head * shape.channels),
        packed(part.pack ? (part.last_head - part.first_head) * shape.tokens * shape.channels : 0) {
    if (part.pack) {
      const int64_t heads = part.last_head - part.first_head;
      const TokenLayout to{shape.channels, shape.tokens * shape.channels};
      for (int64_t token = 0; token < shape.tokens; ++token) {
        for (int64_t head = 0; head < heads; ++head) {
          std::copy_n(first_head + token * layout.token_step + head * layout.head_step,
                      shape.channels, packed.get() + token * to.token_step + head * to.head_step);
        }
      }
      first_head = packed.get();
      layout = to;
    }
  }
};

}  // namespace QUERYSEG_ISA
}  // namespace queryseg
